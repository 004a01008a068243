"""Operators and whole models on one GPU: `aft-lens bench gpu` and `bench gpu_table`."""
