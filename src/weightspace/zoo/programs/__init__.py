"""Populations of compiled programs: sampled, validated, compiled, freed of duplicates, stored sparsely; resumable."""
