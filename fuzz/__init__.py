"""Fuzzing: mutated checkpoints by the million, each read in a cage and held against the usual loaders."""
