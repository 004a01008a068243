"""Every pair of positions of a small grid: AFT-conv on up to 256 positions."""
