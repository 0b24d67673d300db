"""How each family of transformers writes its settings and names its arrays."""
