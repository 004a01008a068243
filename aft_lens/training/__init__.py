"""Recipes, the Lightning module and the sparsity terms."""
