"""AFT Lens: the Attention Free Transformer, its sparsity, and where vision models look."""

__version__ = "0.1.0"
