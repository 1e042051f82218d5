"""The optimiser behind softmax regression: objective, steps, certificate, and where rows are."""
