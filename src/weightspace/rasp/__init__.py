"""RASP: programs as text, data and meaning, and their compilation into weights; no meta-model and no torch."""
