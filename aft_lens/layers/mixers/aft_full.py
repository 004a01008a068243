"""AFT-full, AFT-local and AFT-simple layers: position biases between every two positions, or none."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.position_bias import Factorized
from aft_lens.ops import FactorizedBias, aft_full, aft_local, aft_simple


class AFTFull(nn.Module):
    """AFT-full, AFT-local (with `window_size`) or AFT-simple (`position_bias=None`): Eq. 2, 4 and 5.

    `causal` reads sources up to the target alone, and takes sequences shorter than the position bias.
    """

    def __init__(
        self,
        dim: int,
        position_bias: nn.Module | None,
        *,
        window_size: int | None = None,
        use_query: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.position_bias = position_bias
        self.window_size = window_size
        self.causal = causal
        self.query = nn.Linear(dim, dim) if use_query else None
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.hook_query = HookPoint()
        self.hook_key = HookPoint()
        self.hook_value = HookPoint()

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Mix the t tokens; `grid` is taken for the mixers' common signature and not used."""
        query = None if self.query is None else self.hook_query(self.query(x))
        key, value = self.hook_key(self.key(x)), self.hook_value(self.value(x))
        if self.position_bias is None:
            return self.proj(aft_simple(query, key, value, causal=self.causal))
        w = self._bias(x.shape[1])
        if self.window_size is None:
            return self.proj(aft_full(query, key, value, w, causal=self.causal))
        return self.proj(aft_local(query, key, value, w, self.window_size, causal=self.causal))

    def _bias(self, length: int) -> Tensor | FactorizedBias:
        """w, as factors where it has them; of a causal layer, that of the first `length` positions."""
        if isinstance(self.position_bias, Factorized):
            target, source = self.position_bias.factors()
            return FactorizedBias(target[:length], source[:length]) if self.causal else FactorizedBias(target, source)
        assert self.position_bias is not None
        w = self.position_bias()
        return w[:length, :length] if self.causal else w
