"""Programs read directly off weights that are clean, or can be made so by linear algebra."""
