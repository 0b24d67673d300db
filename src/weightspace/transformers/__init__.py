"""Trained transformers: read from the usual files, run, looked into and changed at any named place."""
