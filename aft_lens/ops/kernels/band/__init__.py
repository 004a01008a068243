"""A window around each position: AFT-conv on large grids."""
