"""Exponentials of keys times values, as every form sums them: numerator and denominator as columns of one tensor."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SAFE_DENOMINATOR = {torch.float32: 1e-18, torch.float64: 1e-180}
"""Below this a denominator may have lost terms that count: factors under 1e-38 (1e-308) are gone, times at most
e^`LARGEST_EXPONENT` and some 10^4 sources they stay 10^-7 of it."""
LARGEST_EXPONENT = {torch.float32: 20.0, torch.float64: 250.0}
"""A causal block clamps keys above its reference here; the targets that would read one are redone wider."""


def sums_buffer(value: Tensor, *, heads_last: bool) -> Tensor:
    """An empty `h m c+1 s` for the columns or sums of `value`; `heads_last` lays it out as images `m c+1 h s`."""
    h, m, c, *rest = value.shape
    if heads_last:
        return value.new_empty(m, c + 1, h, *rest).movedim(2, 0)
    return value.new_empty(h, m, c + 1, *rest)


def columns(
    key: Tensor, value: Tensor, reference: Tensor, limit: float | None = None, *, heads_last: bool = False
) -> Tensor:
    """e^(K - reference) V and, as the last of the c + 1 channels, e^(K - reference).

    Shapes: key `h m *s`, value `h m c *s`, reference broadcasts to key; result `h m c+1 *s`. `limit` clamps the
    exponent; `heads_last` as in `sums_buffer`.
    """
    c = value.shape[2]
    out = sums_buffer(value, heads_last=heads_last)
    weight = out[:, :, c]
    torch.sub(key, reference, out=weight)
    if limit is not None:
        weight.clamp_(max=limit)
    weight.exp_()
    torch.mul(value, weight.unsqueeze(2), out=out[:, :, :c])
    return out


def drop_broken(mixed: Float[Tensor, "h m c1 *s"]) -> Bool[Tensor, "h m *s"]:
    """Set infinite and NaN columns of one causal block to 0; True at the targets from the first such source on.

    Otherwise an earlier target, whose weight for that source is 0, would read 0 times NaN.
    """
    broken = ~mixed.sum(2).isfinite()
    mixed.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
    return broken.cummax(-1).values


def pull_columns(mixed: Tensor, value: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of key and value from the gradient of `columns`, which is overwritten."""
    c = value.shape[2]
    weight, part = mixed[:, :, c:], gradient[:, :, :c]
    grad_value = torch.mul(part, weight, out=torch.empty_like(value, memory_format=torch.contiguous_format))
    grad_key = torch.mul(gradient[:, :, c], weight.squeeze(2))
    torch.mul(grad_value, value, out=part)
    return grad_key.add_(part.squeeze(2) if c == 1 else part.sum(2)), grad_value


def finite(reference: Tensor, otherwise: Tensor | float = 0.0) -> Tensor:
    """The reference where it is no -inf (nothing readable yet), `otherwise` where it is."""
    return torch.where(reference == float("-inf"), otherwise, reference)


def first_key(key: Float[Tensor, "h m s"]) -> Float[Tensor, "h m 1"]:
    """The first readable key of each row, 0 without one: a reference that no later source can change."""
    return finite(key.gather(-1, (key != float("-inf")).to(torch.uint8).argmax(-1, keepdim=True)))
