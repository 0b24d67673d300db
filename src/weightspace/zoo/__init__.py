"""Populations of networks with known truth: described, trained, stored, checked, imported, published."""
