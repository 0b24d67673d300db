"""Where a network comes from: the network that it is derived from, and what it was trained on."""
