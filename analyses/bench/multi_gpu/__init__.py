"""Training on the GPUs of one machine: `aft-lens bench multi_gpu` and `bench multi_gpu_table`."""
