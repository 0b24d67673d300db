"""What a network is to us: named arrays, their symmetries and their tokens."""
