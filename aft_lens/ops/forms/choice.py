"""Which form a shape takes, by costs fitted to what `aft-lens bench ops` measures.

The costs are nanoseconds of forward plus backward on two CPU cores, without what every form spends alike; only which
of them is smallest matters. E = b (d + h) T counts the values and denominators, P = T or chunk pairs of positions.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from torch import Tensor

from aft_lens.ops.forms.band import chunks
from aft_lens.ops.forms.spec import Spec

BAND_FIXED, BAND_SLOPE = 200, 3.2
"""The band of chunks pays off from a length of so much plus so much times its chunk (AFT-local)."""


def chosen(spec: Spec, value: Tensor, bias: Sequence[Tensor]) -> Spec:
    """A spec that names a form, from one that may name an operator; value `h m c s`.

    It is asked inside the operation that compilers see whole, where shapes are numbers: no graph hangs on the choice.
    """
    if spec.form == "local":
        return replace(spec, form=local_form(spec.grid[0], spec.window))
    if spec.form != "conv":
        return spec
    heads, images, channels = value.shape[:3]
    form = conv_form(
        spec.grid, tuple(bias[0].shape[1:]), images=images, heads=heads, channels=channels, causal=spec.causal,
        device=value.device.type,
    )  # fmt: skip
    return replace(spec, form=form)


def local_form(length: int, window_size: int) -> str:
    """AFT-local's form: "band" where the length is large beside the chunks, else "rows"."""
    _, chunk = chunks(length, window_size)
    return "band" if length > BAND_FIXED + BAND_SLOPE * chunk else "rows"


def conv_form(
    grid: tuple[int, ...], window: tuple[int, ...], *, images: int, heads: int, channels: int, causal: bool, device: str
) -> str:
    """AFT-conv's form; `channels` are a head's, c."""
    if device != "cpu":
        return _on_device(grid, window, causal=causal)
    length = prod(grid)
    elements = images * heads * (channels + 1) * length
    costs = {"matmul": _matmul(elements, heads, length, prod(window))}
    if not causal:
        costs["convolution"] = _convolution(elements, heads, prod(window) * (2 if len(grid) == 1 else 1))
    if len(grid) == 1:
        costs["banded"] = _banded(elements, heads, length, window[0], causal=causal)
    return min(costs, key=lambda form: costs[form])


def _matmul(elements: int, heads: int, length: int, offsets: int) -> float:
    """Products with all T sources, T x T weights a head, and a pass over each offset's diagonal for the gradient."""
    return elements * (5 + 0.034 * length) + 3 * heads * length**2 + offsets * (5500 + 1.8 * heads * length)


def _convolution(elements: int, heads: int, offsets: int) -> float:
    """Depth-wise kernels work on blocks of heads: few heads leave them half empty."""
    full = max(heads, 2)
    return elements * (6.5 + 18 / full + (0.010 + 0.140 / full) * offsets)


def _banded(elements: int, heads: int, length: int, window: int, *, causal: bool) -> float:
    """Products of chunks with themselves and their neighbours."""
    count, chunk = chunks(length, window // 2 + 1)
    pairs = chunk * (1 if count == 1 else 2 if causal else 3)
    return elements * ((9 if causal else 10) + 0.035 * pairs) + (8 if causal else 4) * heads * chunk * pairs


def _on_device(grid: tuple[int, ...], window: tuple[int, ...], *, causal: bool) -> str:
    """Elsewhere products are cheap: the convolution for small windows on lines and for large grids alone."""
    if len(grid) == 1:
        if causal:
            return "banded" if 2 * window[0] < grid[0] else "matmul"
        return "convolution" if window[0] <= 5 else "banded"
    return "matmul" if causal or prod(grid) <= 1024 else "convolution"
