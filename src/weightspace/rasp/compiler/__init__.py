"""From programs to transformers: their weights, their forward pass, their files, their pictures."""
