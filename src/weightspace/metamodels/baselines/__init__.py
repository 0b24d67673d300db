"""The methods a sceptic would name, behind the same contract as the meta-models."""
