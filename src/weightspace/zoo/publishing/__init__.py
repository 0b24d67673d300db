"""Zoos and models to and from a hub repository or a folder of the same layout: what differs, checked, manifest last."""
