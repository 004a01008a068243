"""The pre-norm Transformer block around any mixer."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.memory import Memory, Place


class StochasticDepth(nn.Module):
    """Whole rows of a batch left out in training with probability `rate`, the others scaled by 1 / (1 - rate).

    torchvision has the same; importing it takes as long as PyTorch itself, and every model would wait for it.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """x in evaluation; Huang et al. (arXiv 1603.09382)."""
        if not self.training or self.rate == 0:
            return x
        kept = torch.empty(len(x), 1, 1, dtype=x.dtype, device=x.device).bernoulli_(1 - self.rate)
        return x * (kept if self.rate == 1 else kept / (1 - self.rate))


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)), each branch under stochastic depth by row and dropout."""

    def __init__(
        self,
        dim: int,
        mixer: nn.Module,
        *,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        hidden = int(dim * mlp_ratio)
        # Its third place is empty so that weights have the names that torchvision's MLP gave them.
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim))
        self.drop_path = StochasticDepth(drop_path)
        self.dropout = nn.Dropout(dropout)
        self.hook_mixer = HookPoint()
        self.hook_residual = HookPoint()

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Apply both branches to tokens laid out on `grid`."""
        x = x + self.drop_path(self.dropout(self.hook_mixer(self.mixer(self.norm1(x), grid))))
        return self.hook_residual(x + self.drop_path(self.dropout(self.mlp(self.norm2(x)))))

    def step(self, x: Float[Tensor, "b d"], memory: Memory, place: Place) -> Float[Tensor, "b d"]:
        """Apply both branches to the next token of each sequence, as evaluation does; the memory changes in place."""
        mixer: Any = self.mixer
        x = x + mixer.step(self.norm1(x), memory, place)
        return x + self.mlp(self.norm2(x))
