"""The fast forms of the operators in PyTorch: sums over sources by matrix products, convolutions, bands and gathers."""
