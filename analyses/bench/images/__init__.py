"""Image files on their way to the GPU: `aft-lens bench images` and `bench images_table`."""
