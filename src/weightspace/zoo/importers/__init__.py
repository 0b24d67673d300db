"""Zoos that other people made, read in their own forms and written as zoos of ours."""
