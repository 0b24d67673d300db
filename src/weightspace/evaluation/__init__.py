"""Scores with intervals, side-by-side comparison, tables, plots and pages."""
