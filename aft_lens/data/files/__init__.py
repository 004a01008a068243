"""Image files as batches: read by worker processes, decoded and augmented on the GPU where there is one."""
