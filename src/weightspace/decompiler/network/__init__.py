"""The trained decompiler: a reader of a transformer's graph, and a decoder that writes programs."""
