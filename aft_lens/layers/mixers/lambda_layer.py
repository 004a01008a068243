"""The Lambda layer, from lambda-networks (the `baselines` extra)."""

import warnings
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec, check_heads, check_input
from aft_lens.layers.optional import baseline


class Lambda(nn.Module):
    """Lambda layer of Bello 2021 from lambda-networks, the implementation that the paper compares with.

    Full context on a square grid of `side`, |k| = 16 as in Table 7; no class token. Raises ImportError without the
    `baselines` extra, ValueError on another grid.
    """

    def __init__(self, dim: int, num_heads: int, side: int, *, dim_k: int = 16) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.side = side
        layer = baseline("lambda_networks").LambdaLayer
        with warnings.catch_warnings():  # the package calls torch.meshgrid without its indexing argument
            warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
            self.mix = layer(dim=dim, dim_out=dim, n=side, dim_k=dim_k, heads=num_heads)
        nn.init.trunc_normal_(self.mix.rel_pos_emb, std=0.02)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Mix the t tokens laid out on `grid` in raster order."""
        check_input(x, self.proj)
        if tuple(grid) != (self.side, self.side):
            raise ValueError(f"grid must be {self.side} x {self.side} for the Lambda layer, got {tuple(grid)}")
        image = x.transpose(1, 2).unflatten(-1, tuple(grid))
        return self.proj(self.mix(image).flatten(2).transpose(1, 2))


def _build(spec: MixerSpec) -> Lambda:
    return Lambda(spec.dim, spec.num_heads, spec.grid[0])


MIXERS.add("lambda", Mixer(_build, "Lambda layer", pooled=True, any_size=True))
