"""The AFT-conv layer: projections around the operator, over a grid."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.position_bias import Indexed
from aft_lens.ops import aft_conv, aft_indexed
from aft_lens.ops.kernels import dispatch


class AFTConv(nn.Module):
    """AFT-conv over a 1-D or 2-D grid (Eq. 6): h biases, one key channel a head, c = d / h value channels.

    `position_bias` is one of `aft_lens.layers.position_bias`; swapping it for `Indexed` turns the layer into
    pooling and indexing. Raises ValueError if `dim` is no multiple of `num_heads`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        position_bias: nn.Module,
        *,
        use_query: bool = True,
        outside: str = "global",
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embed_dim must be a multiple of num_heads, got {dim} and {num_heads}")
        self.num_heads = num_heads
        self.outside = outside
        self.position_bias = position_bias
        self.query = nn.Linear(dim, dim) if use_query else None
        self.key = nn.Linear(dim, num_heads)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.hook_query = HookPoint()
        self.hook_key = HookPoint()
        self.hook_value = HookPoint()

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Mix the t tokens laid out on `grid` in raster order."""
        w = self.position_bias()
        if self._fits_kernels(x, w, grid):
            return self._fused(x, w, grid)
        b, _, d = x.shape
        split = (b, self.num_heads, d // self.num_heads, *grid)
        query = None
        if self.query is not None:
            query = self.hook_query(self.query(x).transpose(1, 2).reshape(split))
        key = self.hook_key(self.key(x).transpose(1, 2).reshape(b, self.num_heads, *grid))
        value = self.hook_value(self.value(x).transpose(1, 2).reshape(split))
        if isinstance(self.position_bias, Indexed):
            mixed = aft_indexed(query, key, value, w, self.position_bias.offset)
        else:
            mixed = aft_conv(query, key, value, w, outside=self.outside)
        return self.proj(mixed.reshape(b, d, -1).transpose(1, 2))

    def _fits_kernels(self, x: Tensor, w: Tensor, grid: Sequence[int]) -> bool:
        """Whether projections may write straight into the kernels' layout: nothing watches them on the way."""
        if not x.is_cuda:
            return False
        if any(len(hook._forward_hooks) for hook in (self.hook_query, self.hook_key, self.hook_value)):
            return False
        if isinstance(self.position_bias, Indexed):
            return not dispatch.exporting() and dispatch.indexed_refusal(x, w.shape[1], grid) is None
        return dispatch.refusal(x, w.shape[1:], grid, outside=self.outside) is None

    def _fused(self, x: Tensor, w: Tensor, grid: Sequence[int]) -> Tensor:
        """The same through kernels: projections W x^T leave memory as `h c b t`, their biases are added inside."""
        b, t, d = x.shape
        flat = x.reshape(-1, d).T
        split = (self.num_heads, d // self.num_heads, b, t)
        query = None if self.query is None else (self.query.weight @ flat).view(split).permute(2, 0, 1, 3)
        key = self.key.weight @ flat
        value = (self.value.weight @ flat).view(split).permute(2, 0, 1, 3)
        key = key.view(self.num_heads, b, t).transpose(0, 1)
        # The bias of a head's key scales numerator and denominator alike: it is left out, and its gradient is 0.
        w = w + 0.0 * self.key.bias.reshape(-1, *[1] * (w.ndim - 1))
        biases = {"query_bias": None if self.query is None else self.query.bias, "value_bias": self.value.bias}
        if isinstance(self.position_bias, Indexed):
            mixed = dispatch.indexed(query, key, value, w, self.position_bias.offset, grid, **biases)
        else:
            mixed = dispatch.conv(query, key, value, w, grid, **biases)
        leading = mixed.permute(1, 2, 0, 3).reshape(d, b * t)  # a view: the product takes it transposed, uncopied
        return self.proj(leading.T).view(b, t, d)
