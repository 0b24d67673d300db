"""Programs for trained transformers: from what a network answers to a causal RASP program, and how far it is shown."""
