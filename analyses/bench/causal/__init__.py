"""Causal AFT beside causal attention on one GPU: `aft-lens bench causal` and `bench causal_table`."""
