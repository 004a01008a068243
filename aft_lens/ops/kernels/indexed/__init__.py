"""A few offsets a head: AFT-conv pruned to indexing."""
