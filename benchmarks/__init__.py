"""Benchmarks: one script for each hot path, each a ratio to the plain alternative in the same run."""
