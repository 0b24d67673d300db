"""What a network is to us: named arrays, their symmetries, their tokens, and the store on disk."""
