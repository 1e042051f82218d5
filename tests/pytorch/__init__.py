"""crossent.torch."""
