"""Which offsets stay, and the models that are made of that."""
