"""What is asked of a network, what the truth is, and how an answer is scored."""
