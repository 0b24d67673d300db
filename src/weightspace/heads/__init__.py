"""What attention heads do: labelled by running a model, and read from the weights of one head at a time."""
