r"""AFT-conv: position biases shared over a 1-D or 2-D grid (Eq. 6), in forms without cancellation.

Eq. 6 adds ``conv(expm1(w))`` to a global sum, which cancels where w is very negative on a dominant key. With
a = max(0, max w) the same ratio is

    num_t = sum_{s in window} e^(w - a) e^(K_s - m) V_s  +  e^(-a) sum_{s outside} e^(K_s - m) V_s

(and den_t likewise without V): only non-negative weights, so nothing cancels. Where key and bias peak so far
apart that the denominator nears float32's end, the row-wise form with each target's joint maximum takes over.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from aft_lens.ops.combine import SAFE_DENOMINATOR, accumulate_dtype, exp_key, gate, rowwise
from aft_lens.ops.expand import check_outside, check_window, expand_bias

IMPLEMENTATIONS = ("auto", "matmul", "convolution", "rowwise")
MATMUL_LIMIT = 1024
"""Grids of more positions than this take the convolution, whose memory does not grow with T x T."""


def aft_conv(
    query: Float[Tensor, "b h c *grid"] | None,
    key: Float[Tensor, "b h *grid"],
    value: Float[Tensor, "b h c *grid"],
    position_bias: Float[Tensor, "h *window"],
    *,
    causal: bool = False,
    outside: str = "global",
    implementation: str = "auto",
) -> Float[Tensor, "b h c *grid"]:
    """Mix values over a grid with h shared position biases and one key channel a head: Eq. 6 with exp(K).

    `query=None` leaves the gate out (Table 12). `outside="none"` removes everything beyond the window (Sec. 5.3).
    `implementation` is "matmul" (bias expanded to h x T x T), "convolution" (window by convolution, the rest by
    prefix and suffix sums; not causal), "rowwise" (exact for any finite input) or "auto". Accumulates in float32
    or wider and returns the value's dtype. Raises ValueError on an even window, a wrong dimension, or an unknown
    option.
    """
    grid = key.shape[2:]
    check_outside(outside)
    check_window(position_bias.shape[1:], grid)
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {IMPLEMENTATIONS}, got {implementation!r}")
    if position_bias.shape[0] != key.shape[1]:
        raise ValueError(f"position_bias must have {key.shape[1]} heads like key, got {position_bias.shape[0]}")
    if implementation == "convolution" and causal:
        raise ValueError('implementation="convolution" has no causal form; use "auto" or "rowwise"')

    dtype = accumulate_dtype(value.dtype)
    k, v, w = key.to(dtype).flatten(2), value.to(dtype).flatten(3), position_bias.to(dtype)
    form = implementation
    if form == "auto":
        small = k.shape[-1] <= MATMUL_LIMIT
        form = "rowwise" if causal else "matmul" if small else "convolution"
    if form == "rowwise":
        mean = rowwise(k, v, expand_bias(w, grid, causal=causal, outside=outside))
    else:
        sums = _matmul if form == "matmul" else _convolution
        num, den = sums(k, v, w, grid, causal, outside)
        if implementation == "auto" and not bool((den > SAFE_DENOMINATOR).all()):
            mean = rowwise(k, v, expand_bias(w, grid, causal=causal, outside=outside))
        else:
            mean = num / den
    return gate(query, mean.reshape(value.shape), value.dtype)


def _shift(w: Tensor) -> Tensor:
    """a = max(0, max w) over all heads and offsets' own head, shape `h 1`."""
    return w.flatten(1).amax(1, keepdim=True).clamp(min=0.0).detach()


def _matmul(
    key: Tensor, value: Tensor, w: Tensor, grid: torch.Size, causal: bool, outside: str
) -> tuple[Tensor, Tensor]:
    """Numerator `b h c t` and denominator `b h 1 t` by one matrix product a head."""
    weight, weighted = exp_key(key, value)
    bias = expand_bias(w, grid, causal=causal, outside=outside)
    kernel = torch.exp(bias - _shift(w).unsqueeze(-1))
    columns = torch.cat([weighted, weight], dim=2)
    b, h, c1, t = columns.shape
    mixed = columns.transpose(0, 1).reshape(h, b * c1, t) @ kernel.transpose(1, 2)
    mixed = mixed.reshape(h, b, c1, t).transpose(0, 1)
    return mixed[:, :, :-1], mixed[:, :, -1:]


def _convolution(
    key: Tensor, value: Tensor, w: Tensor, grid: torch.Size, causal: bool, outside: str
) -> tuple[Tensor, Tensor]:
    """Numerator and denominator by a depth-wise convolution plus the sum outside each window."""
    weight, weighted = exp_key(key, value)
    columns = torch.cat([weighted, weight], dim=2)
    b, h, c1, t = columns.shape
    image = columns.transpose(1, 2).reshape(b * c1, h, *grid)
    shift = _shift(w)
    kernel = torch.exp(w - shift.view(h, *(1 for _ in grid))).unsqueeze(1)
    conv = F.conv1d if len(grid) == 1 else F.conv2d
    mixed = conv(image, kernel, padding=[side // 2 for side in w.shape[1:]], groups=h)
    if outside == "global":
        scale = torch.exp(-shift).view(1, h, *(1 for _ in grid))
        mixed = mixed + scale * _outside_sum(image, [side // 2 for side in w.shape[1:]])
    mixed = mixed.reshape(b, c1, h, t).transpose(1, 2)
    return mixed[:, :, :-1], mixed[:, :, -1:]


def _beyond(x: Tensor, radius: int) -> Tensor:
    """Sum along the last dimension of everything more than `radius` away, by prefix and suffix sums."""
    size = x.shape[-1]
    if radius + 1 >= size:
        return torch.zeros_like(x)
    before = x.cumsum(-1)[..., : size - radius - 1]
    after = x.flip(-1).cumsum(-1).flip(-1)[..., radius + 1 :]
    return F.pad(before, (radius + 1, 0)) + F.pad(after, (0, radius + 1))


def _outside_sum(image: Tensor, radius: list[int]) -> Tensor:
    """Sum of everything outside the window around each position, never as a total minus a box."""
    sides = _beyond(image, radius[-1])
    if len(radius) == 1:
        return sides
    band = F.unfold(sides.flatten(0, 1).unsqueeze(1), (2 * radius[0] + 1, 1), padding=(radius[0], 0)).sum(1)
    rows = _beyond(image.sum(-1), radius[0]).unsqueeze(-1)
    return band.reshape(image.shape) + rows
