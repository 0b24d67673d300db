"""Backdoors in networks: found, located, removed."""
