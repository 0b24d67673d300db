"""Taking a backdoor out: find what the network responds to, and unlearn that response."""
