"""The AFT-conv layer: projections around the operator, over a grid."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec, check_heads, check_input
from aft_lens.layers.position_bias import ConvBiasSpec, Indexed, PositionBias, conv_bias
from aft_lens.ops import PreparedBias, aft_conv, aft_indexed, prepare_bias

DEFAULT_BIAS = "reparameterized"
"""Parametrization of w if none is named: Eq. 8, the paper's."""


class AFTConv(nn.Module):
    """AFT-conv over a 1-D or 2-D grid (Eq. 6): h biases, one key channel a head, c = d / h value channels.

    `position_bias` is one of `aft_lens.layers.position_bias`, Eq. 8's on a square window of `window_size` if left out;
    swapping it for `Indexed` turns the layer into pooling and indexing. `implementation` is the operator's. It stands
    where attention does (`block.attn = AFTConv(dim, 32)` in a timm ViT) if every token has a place on the grid: a
    class token is refused. Raises ValueError if `dim` is no multiple of `num_heads`, or the window's side is even.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        position_bias: PositionBias | None = None,
        *,
        window_size: int = 11,
        use_query: bool = True,
        outside: str = "global",
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        if position_bias is None:
            if window_size % 2 == 0:
                raise ValueError(f"window_size must be odd for aft_conv, got {window_size}")
            position_bias = conv_bias(DEFAULT_BIAS, ConvBiasSpec(num_heads, (window_size, window_size)))
        self.num_heads = num_heads
        self.outside = outside
        self.implementation = "auto"
        self.position_bias = position_bias
        self.query = nn.Linear(dim, dim) if use_query else None
        self.key = nn.Linear(dim, num_heads)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.hook_query = HookPoint()
        self.hook_key = HookPoint()
        self.hook_value = HookPoint()
        self._prepared: tuple[tuple[int, ...], torch.dtype, Tensor | PreparedBias, list[tuple[Tensor, int]]] | None
        self._prepared = None

    def prepare(self, grid: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        """Keep what evaluation on a grid makes of the position bias alone, for values of a dtype (autocast's, if any).

        That is w, and where kernels take it e^(w - a), which no call on that grid and dtype makes any more where no
        gradient is asked for and nothing is compiled. It is dropped when the layer's mode changes, when it moves, and
        when the bias is another or was written to, but by `.data`; a layer that indexes a few offsets keeps nothing.
        Raises ValueError in training mode.
        """
        if self.training:
            raise ValueError("prepare() is for evaluation, the layer is in training mode; call eval() first")
        self._drop()
        tensors = self._bias_tensors()
        unversioned = any(tensor.is_inference() for tensor in tensors)
        if self.outside == "global" and self.position_bias.few() is None and not unversioned:
            with torch.no_grad():
                kept = prepare_bias(self.position_bias(), grid, dtype)
            self._prepared = (tuple(grid), dtype, kept, [(tensor, tensor._version) for tensor in tensors])

    def train(self, mode: bool = True) -> "AFTConv":
        """Set the mode; what `prepare` kept goes where it changes."""
        if mode != self.training:
            self._drop()
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "AFTConv":
        self._drop()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        """A copy keeps nothing: its tensors count their changes anew."""
        return {**self.__dict__, "_prepared": None}

    def _drop(self) -> None:
        """Keep nothing."""
        self._prepared = None

    def _kept(self, grid: Sequence[int], dtype: torch.dtype) -> Tensor | PreparedBias | None:
        """What `prepare` kept for such a call, if the bias is still what it was and nobody looks into it."""
        if torch.compiler.is_compiling() or self._prepared is None or torch.is_grad_enabled() or self._bias_watched():
            return None
        of_grid, of_dtype, kept, before = self._prepared
        now = self._bias_tensors()
        same = len(now) == len(before) and all(
            tensor is other and tensor._version == version for tensor, (other, version) in zip(now, before, strict=True)
        )
        fits = same and not self.position_bias.training and (of_grid, of_dtype) == (tuple(grid), dtype)
        return kept if fits else None

    def _bias_tensors(self) -> tuple[Tensor, ...]:
        """What the position bias is made of."""
        return (*self.position_bias.parameters(), *self.position_bias.buffers())

    def _bias_watched(self) -> bool:
        """Whether somebody reads or changes w on its way."""
        return bool(self.position_bias._forward_hooks or self.position_bias._forward_pre_hooks)

    def forward(
        self, x: Float[Tensor, "b t d"], grid: Sequence[int] | None = None, *, attn_mask: None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "b t d"]:  # fmt: skip
        """Mix the t tokens laid out on `grid` in raster order, a square one if it is left out.

        `attn_mask` and `is_causal` are what attention is called with; ValueError where one is set, and where t is no
        square and no grid is given, as with a class token.
        """
        check_input(x, self.proj)
        if attn_mask is not None or is_causal:
            raise ValueError("AFT-conv as a layer takes no attn_mask and is not causal; leave them out")
        grid = _square(x.shape[1]) if grid is None else grid
        if x.is_cuda and not self._watched():
            return self._channels_first(x, tuple(grid))
        b, _, d = x.shape
        split = (b, self.num_heads, d // self.num_heads, *grid)
        query = None
        if self.query is not None:
            query = self.hook_query(self.query(x).transpose(1, 2).reshape(split))
        key = self.hook_key(self.key(x).transpose(1, 2).reshape(b, self.num_heads, *grid))
        value = self.hook_value(self.value(x).transpose(1, 2).reshape(split))
        mixed = self._mix(query, key, value)
        return self.proj(mixed.reshape(b, d, -1).transpose(1, 2))

    def _watched(self) -> bool:
        """Whether somebody reads query, key or value on the way."""
        return any(len(hook._forward_hooks) for hook in (self.hook_query, self.hook_key, self.hook_value))

    def _channels_first(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        """The same where products write straight into the kernels' layout.

        Projections W x^T leave memory as `h c b t`; their biases are added by the operator.
        """
        b, t, d = x.shape
        flat = x.reshape(-1, d).T
        split = (self.num_heads, d // self.num_heads, b, *grid)
        query = None if self.query is None else (self.query.weight @ flat).view(split).movedim(2, 0)
        key = (self.key.weight @ flat).view(self.num_heads, b, *grid).transpose(0, 1)
        value = (self.value.weight @ flat).view(split).movedim(2, 0)
        # The bias of a head's key scales numerator and denominator alike: it is left out, and its gradient is 0.
        query_bias = None if self.query is None else self.query.bias
        mixed = self._mix(query, key, value, query_bias, self.value.bias, unused=self.key.bias)
        leading = mixed.movedim(0, 2).reshape(d, b * t)  # a view: the product takes it transposed, uncopied
        return self.proj(leading.T).view(b, t, d)

    def _mix(
        self, query: Tensor | None, key: Tensor, value: Tensor, query_bias: Tensor | None = None,
        value_bias: Tensor | None = None, unused: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The operator that the bias is for; `unused` (`h`) is given a gradient of 0."""
        how: dict[str, Any] = {
            "implementation": self.implementation,
            "query_bias": query_bias,
            "value_bias": value_bias,
        }
        kept = self._kept(key.shape[2:], value.dtype)
        if kept is not None:
            return aft_conv(query, key, value, kept, outside=self.outside, **how)
        # A window alone, and a form that is named, are for the bias as it is.
        few = self.position_bias.few() if self._indexes() else None
        w = self.position_bias() if few is None else few[0]
        if unused is not None:
            w = w + 0.0 * unused.reshape(-1, *[1] * (w.ndim - 1))
        if few is None:
            return aft_conv(query, key, value, w, outside=self.outside, **how)
        return aft_indexed(query, key, value, w, few[1], **how)

    def _indexes(self) -> bool:
        """Whether a few offsets may stand for w: always where they are kept, else where nothing asks for all of it."""
        if self.position_bias.offset is not None:
            return True
        return self.outside == "global" and self.implementation == "auto" and not self._bias_watched()


def _square(tokens: int) -> tuple[int, int]:
    """Rows and columns of a square grid of so many tokens."""
    side = math.isqrt(tokens)
    if side * side == tokens:
        return side, side
    if math.isqrt(tokens - 1) ** 2 == tokens - 1:
        raise ValueError(
            f"x has {tokens} tokens, one before a grid of {side} x {side}: AFT-conv mixes tokens that have a place; "
            "build the model without class token and pool its tokens (timm: class_token=False, global_pool='avg')"
        )
    raise ValueError(f"x has {tokens} tokens, which make no square; give grid=(rows, columns)")


def _build(spec: MixerSpec) -> AFTConv:
    """`window_size` is the side of the window, odd, in tokens."""
    bias: PositionBias
    if spec.keep is None:
        window = (spec.window_size,) * len(spec.grid)
        made_of = ConvBiasSpec(
            spec.num_heads, window, spec.bias_start, spec.temperature, spec.straight_through, spec.positions
        )
        bias = conv_bias(spec.position_bias or DEFAULT_BIAS, made_of)
    else:
        shape = (spec.num_heads, spec.keep)
        bias = Indexed(torch.zeros(shape), torch.zeros(*shape, len(spec.grid), dtype=torch.long))
    return AFTConv(spec.dim, spec.num_heads, bias, use_query=spec.use_query, outside=spec.outside)


def _check(spec: MixerSpec) -> str | None:
    return None if spec.window_size % 2 else f"window_size must be odd for aft_conv, got {spec.window_size}"


MIXERS.add(
    "aft_conv",
    Mixer(
        _build,
        "AFT-conv",
        pooled=True,
        any_size=True,
        weights="offset",
        position_bias=DEFAULT_BIAS,
        indexable=True,
        check=_check,
        fits_cuda_graphs=lambda spec: spec.outside == "global",  # a window alone looks for lost denominators
    ),
)
