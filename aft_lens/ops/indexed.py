r"""AFT-conv whose heads keep k offsets: global pooling plus indexing (Sec. 8).

With e_s = e^(K_s - m), u_i = e^(w_i) - 1 and s_i the source at the i-th kept offset of the target,

    den_t = sum_s e_s + sum_i u_i e_{s_i},    out_t = (sum_s e_s V_s + sum_i u_i e_{s_i} V_{s_i}) / den_t

so the value is read once for the pool and k times for the offsets, and every weight is a small `b h t` tensor.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aft_lens.ops.combine import accumulate_dtype, gate, rowwise
from aft_lens.ops.expand import expand_offsets, source_index

IMPLEMENTATIONS = ("auto", "gather", "matmul", "rowwise")
MOST_NEGATIVE = -3.0
"""Gather adds (e^w - 1) times one source to a total: at w >= -3 rounding grows by at most e^3 = 20."""
LARGEST = 50.0
"""Above this e^-w times the pool nears float32's end, and the row-wise form takes over."""
GATHERS_A_PRODUCT = 4
"""One gather of the value costs as much as this many of the matrix product's multiplications a value."""

CHUNK = 600_000
"""Values handled at a time where no gradient is asked, so that the temporaries stay in the caches."""


def indexed_form(position_bias: Float[Tensor, "h k"], sources: int) -> str:
    """The form that `aft_indexed` takes by "auto" for this bias over that many sources.

    "pool" (k = 0), "gather", "matmul" where k gathers cost more than a matrix product, or "rowwise" where the
    bias is outside [`MOST_NEGATIVE`, `LARGEST`] and the others could lose it to rounding.
    """
    keep = position_bias.shape[1]
    if keep == 0 or position_bias.shape[0] == 0:
        return "pool"
    if torch.compiler.is_exporting():
        return "gather"
    low, high = (float(end) for end in torch.aminmax(position_bias.detach()))
    if not (low >= MOST_NEGATIVE and high <= LARGEST):
        return "rowwise"
    return "matmul" if keep * GATHERS_A_PRODUCT > sources else "gather"


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
    head wherever the bias is not 0). "gather" costs O(T k d), "matmul" O(T T d), "rowwise" is exact for any finite
    bias; "auto" takes `indexed_form`'s choice, and gather while being exported. Accumulates in float32 or wider.
    Raises ValueError on a wrong shape or option.
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
    form = indexed_form(w, k.shape[-1]) if implementation == "auto" else implementation
    if form == "rowwise":
        mean = rowwise(k, v, expand_offsets(w, offset, grid))
    elif form == "matmul":
        mean = _matmul(k, v, expand_offsets(w, offset, grid))
    elif w.shape[1] == 0:
        mean = _pool(k, v)
    else:
        mean = _gather(k, v, w, offset, grid)
    return gate(query, mean.reshape(value.shape), value.dtype)


def _in_place(*tensors: Tensor) -> bool:
    """Whether memory may be written again: nothing is being traced and no gradient is asked."""
    if torch.compiler.is_compiling():
        return False
    return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


def _extra(w: Tensor) -> tuple[Tensor, Tensor]:
    """e^(w - a) - e^-a, shape `h k`, and e^-a, shape `h 1`, with a = max(0, max w)."""
    shift = w.amax(1, keepdim=True).clamp(min=0.0).detach()
    scale = torch.exp(-shift)
    small = scale * torch.expm1(w.clamp(max=1.0))
    return torch.where(w > 1.0, torch.exp(w - shift) - scale, small), scale


def _pool(key: Tensor, value: Tensor) -> Tensor:
    """The same weighted mean of all sources for every target, `b h c t`."""
    return (value @ torch.softmax(key, -1).unsqueeze(-1)).expand(value.shape)


def _gather(key: Tensor, value: Tensor, w: Tensor, offset: Tensor, grid: torch.Size) -> Tensor:
    """Weighted mean `b h c t` from one pool and k gathers."""
    extra, scale = _extra(w)
    flat, inside = source_index(offset, grid)
    index = flat.transpose(0, 1).unsqueeze(1)
    factor = (extra.unsqueeze(-1) * inside).transpose(0, 1)
    if _in_place(key, value, w):
        mean = torch.empty_like(value)
        size = max(1, CHUNK // value[0].numel())
        for part in zip(key.split(size), value.split(size), mean.split(size)):
            _gather_into(*part, index, factor, scale)
        return mean
    weight = torch.exp(key - key.amax(-1, keepdim=True).detach())
    pooled = (value * weight.unsqueeze(2)).sum(-1, keepdim=True)
    shares = [weight.gather(2, i.expand(key.shape)) * f for i, f in zip(index, factor)]
    den = (weight.sum(-1, keepdim=True) * scale + sum(shares)).unsqueeze(2)
    mean = (pooled * scale.view(-1, 1, 1)) / den
    for i, share in zip(index, shares):
        mean = torch.addcmul(mean, value.gather(3, i.unsqueeze(2).expand(value.shape)), share.unsqueeze(2) / den)
    return mean


def _gather_into(key: Tensor, value: Tensor, mean: Tensor, index: Tensor, factor: Tensor, scale: Tensor) -> None:
    """`_gather` for a few images, written into `mean`: fresh memory costs more than the arithmetic."""
    weight = torch.sub(key, key.amax(-1, keepdim=True)).exp_()
    buffer = value * weight.unsqueeze(2)
    pooled = buffer.sum(-1, keepdim=True).mul_(scale.view(-1, 1, 1))
    shares = weight.new_empty(len(index), *weight.shape)
    inverse = torch.empty_like(weight).copy_((weight.sum(-1, keepdim=True) * scale).expand_as(weight))
    for i, f, share in zip(index, factor, shares):
        inverse.add_(torch.gather(weight, 2, i.expand(key.shape), out=share).mul_(f))
    torch.mul(pooled, inverse.reciprocal_().unsqueeze(2), out=mean)
    for i, share in zip(index, shares):
        torch.gather(value, 3, i.unsqueeze(2).expand(value.shape), out=buffer)
        mean.addcmul_(buffer, share.mul_(inverse).unsqueeze(2))


def _matmul(key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Weighted mean `b h c t` by one matrix product a head with the bias written out (`h t s`)."""
    weight = torch.exp(key - key.amax(-1, keepdim=True).detach()).unsqueeze(2)
    kernel = torch.exp(bias - bias.flatten(1).amax(1).clamp(min=0.0).detach().view(-1, 1, 1)).transpose(1, 2)
    columns = torch.cat([value * weight, weight], dim=2)
    b, h, c1, t = columns.shape
    mixed = columns.transpose(0, 1).reshape(h, b * c1, t) @ kernel
    mixed = mixed.reshape(h, b, c1, t).transpose(0, 1)
    return mixed[:, :, :-1] / mixed[:, :, -1:]
