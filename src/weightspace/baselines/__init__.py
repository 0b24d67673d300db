"""The methods a sceptic would name, behind the same `Predictor` as the meta-models."""
