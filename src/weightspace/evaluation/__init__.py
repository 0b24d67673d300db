"""Metrics with intervals, side-by-side comparison, plots and reports."""
