"""Data sets by name and their transforms."""
