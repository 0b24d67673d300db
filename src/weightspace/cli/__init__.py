"""The verbs a person types: each parses its options, calls one function below, and prints what comes back."""

from weightspace.cli.dispatch import main

__all__ = ["main"]
