"""One visible training loop, its optimiser, its checkpoints and exact resume."""
