"""Modules: position biases, mixers, blocks."""
