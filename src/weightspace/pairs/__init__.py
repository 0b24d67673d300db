"""Pairs of a trained transformer and the program whose S-ops its components are known to hold."""
