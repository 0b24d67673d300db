"""Which parts of a transformer compute an answer: interventions, edges with scores, and how faithful they are."""
