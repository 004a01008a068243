"""Along a sequence: AFT-simple and causal AFT-local."""
