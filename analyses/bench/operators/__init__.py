"""The operators on a CPU: `aft-lens bench ops`."""
