"""The pre-norm Transformer block around any mixer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.later import later
from aft_lens.layers.hook_point import HookPoint

if TYPE_CHECKING:
    from torchvision import ops
else:
    ops = later("torchvision.ops")


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)), each branch under stochastic depth by row."""

    def __init__(self, dim: int, mixer: nn.Module, *, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = ops.MLP(dim, [int(dim * mlp_ratio), dim], activation_layer=nn.GELU, inplace=None)
        self.drop_path = ops.StochasticDepth(drop_path, mode="row")
        self.hook_mixer = HookPoint()
        self.hook_residual = HookPoint()

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Apply both branches to tokens laid out on `grid`."""
        x = x + self.drop_path(self.hook_mixer(self.mixer(self.norm1(x), grid)))
        return self.hook_residual(x + self.drop_path(self.mlp(self.norm2(x))))
