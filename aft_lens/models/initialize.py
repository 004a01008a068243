"""First weights of every model."""

from torch import Tensor, nn

STD = 0.02


def initialize(model: nn.Module, *embeddings: Tensor) -> None:
    """Truncated normal 0.02 for linear weights and embeddings, zero biases, as in DeiT."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=STD)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for embedding in embeddings:
        nn.init.trunc_normal_(embedding, std=STD)
