"""Reading tensors out of models."""
