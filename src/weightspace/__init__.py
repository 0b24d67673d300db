"""weightspace: meta-models, neural networks that read the weights of other networks."""

__version__ = "0.1.0"
