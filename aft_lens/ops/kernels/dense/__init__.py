"""Every pair of positions of a grid: AFT-conv on small grids, AFT-full."""
