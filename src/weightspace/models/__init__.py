"""Meta-models: transformers that read weights."""
