"""Populations of networks with known truth: describe, train, store, check."""
