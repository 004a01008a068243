"""What sharing a sweep costs: the same cells in one process and on four Ray workers, and what a million would take."""
