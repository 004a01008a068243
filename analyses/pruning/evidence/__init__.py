"""Ladders over many checkpoints, and what they say beyond their curves."""
