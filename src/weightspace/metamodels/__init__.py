"""Meta-models: one contract for whatever reads weights and answers, and the transformers that do."""
