"""What a model costs and what it gets right, rung by rung."""
