"""What is random in a training image: drawn once, applied by the CPU to a picture or by a GPU to a batch."""
