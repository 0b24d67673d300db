"""RASP: the language, its compiler, samplers and tokens; usable with no meta-model and no torch."""
