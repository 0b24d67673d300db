"""The paper's own decompiling task, decoder and scores, and the best anybody could score on it."""
