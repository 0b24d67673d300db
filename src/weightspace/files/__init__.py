"""Bytes on disk and over the network: written whole, hashed, locked, copied, fetched; knows no network."""
