"""What computes, in processes of its own: pages ask by name, and the server itself never imports PyTorch."""
