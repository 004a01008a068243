"""AFT-conv whose heads keep k offsets: global pooling plus indexing (Sec. 8)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aft_lens.ops.combine import SAFE_DENOMINATOR, accumulate_dtype, exp_key, gate, rowwise
from aft_lens.ops.expand import expand_offsets, source_index

IMPLEMENTATIONS = ("auto", "gather", "rowwise")
MOST_NEGATIVE = -3.0
"""Gather adds (e^w - 1) times one source to a total: at w >= -3 rounding grows by at most e^3 = 20."""


def aft_indexed(
    query: Float[Tensor, "b h c *grid"] | None,
    key: Float[Tensor, "b h *grid"],
    value: Float[Tensor, "b h c *grid"],
    position_bias: Float[Tensor, "h k"],
    offset: Int[Tensor, "h k n"],
    *,
    implementation: str = "auto",
) -> Float[Tensor, "b h c *grid"]:
    """Pool all sources once, then re-weight the k sources at each head's kept offsets.

    Equals `aft_conv` with a bias that is 0 but at `offset` (source minus target, in grid steps, distinct within a
    head). "gather" costs O(T k d); "rowwise" is exact for any finite bias; "auto" takes gather unless a bias is
    under `MOST_NEGATIVE` or a denominator nears float32's end. Raises ValueError on a wrong shape or option.
    """
    grid = key.shape[2:]
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(f"implementation must be one of {IMPLEMENTATIONS}, got {implementation!r}")
    if offset.shape[:2] != position_bias.shape or offset.shape[0] != key.shape[1]:
        raise ValueError(
            f"offset and position_bias must be (h k n) and (h k) with h = {key.shape[1]}, "
            f"got {tuple(offset.shape)} and {tuple(position_bias.shape)}"
        )
    dtype = accumulate_dtype(value.dtype)
    k, v, w = key.to(dtype).flatten(2), value.to(dtype).flatten(3), position_bias.to(dtype)
    exact = implementation == "rowwise"
    if implementation == "auto" and w.numel():
        exact = bool((w < MOST_NEGATIVE).any())
    if not exact:
        num, den = _gather(k, v, w, offset, grid)
        exact = implementation == "auto" and not bool((den > SAFE_DENOMINATOR).all())
    mean = rowwise(k, v, expand_offsets(w, offset, grid)) if exact else num / den
    return gate(query, mean.reshape(value.shape), value.dtype)


def _gather(key: Tensor, value: Tensor, w: Tensor, offset: Tensor, grid: torch.Size) -> tuple[Tensor, Tensor]:
    """Numerator `b h c t` and denominator `b h 1 t` from one pool and k gathers."""
    columns = torch.cat(exp_key(key, value)[::-1], dim=2)
    flat, inside = source_index(offset, grid)
    shift = w.amax(1, keepdim=True).clamp(min=0.0).detach() if w.shape[1] else w.new_zeros(w.shape[0], 1)
    total = columns.sum(-1, keepdim=True) * torch.exp(-shift).unsqueeze(-1)
    mixed = total.expand(columns.shape)
    extra = torch.exp(-shift) * torch.expm1(w.clamp(max=1.0))
    large = torch.exp(w - shift) - torch.exp(-shift)
    extra = torch.where(w > 1.0, large, extra)
    for i in range(w.shape[1]):
        index = flat[:, i].view(1, flat.shape[0], 1, -1).expand(columns.shape)
        mixed = mixed + columns.gather(3, index) * (extra[:, i, None] * inside[:, i]).unsqueeze(1)
    return mixed[:, :, :-1], mixed[:, :, -1:]
