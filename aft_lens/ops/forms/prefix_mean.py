"""Means of the values up to each position under e^key, as one differentiable op: causal AFT-simple (Eq. 5).

Prefix sums in float64 relative to a level, a multiple of `LEVEL` near the largest key so far. A target takes the sums
of its own level alone: what lies e^-444 below its largest key is lost there, and nothing else. The level is 0 for keys
within `LEVEL` / 2, which is one pass; keys that climb take one more for each level. No step reads a later source.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from aft_lens.ops.forms.columns import first_key
from aft_lens.ops.forms.spec import accumulate_dtype

LEVEL = 512.0
"""Nats between levels: sources of a level lie at most LEVEL / 2 above it, and float64 holds e^709."""
CAPTURED = range(-2, 3)
"""Levels taken while a CUDA graph is captured, where none may be looked at: keys within 1,280 nats."""


def _levels(key: Tensor) -> Tensor | None:
    """The level of each target, `b t d`; None if it is 0 for all."""
    first = first_key(key.transpose(1, 2)).transpose(1, 2)
    if bool((first >= -LEVEL / 2).all()) and bool((key <= LEVEL / 2).all()):
        return None
    level = (key.cummax(1).values / LEVEL).round() * LEVEL
    return torch.where(level.isfinite(), level, 0.0)


def _passes(key: Tensor) -> Iterator[tuple[Tensor | None, Tensor]]:
    """Which targets each pass serves (None: all), and the weights of the sources relative to its level, `b t d`."""
    captured = key.is_cuda and torch.cuda.is_current_stream_capturing()
    key = key.masked_fill(key == float("inf"), float("nan"))
    level: Tensor | None
    if captured:
        level = (key.cummax(1).values / LEVEL).round().clamp(CAPTURED[0], CAPTURED[-1]).nan_to_num(0.0) * LEVEL
    else:
        level = _levels(key)
    if level is None:
        yield None, key.exp()
        return
    for one in [LEVEL * step for step in CAPTURED] if captured else level.unique().tolist():
        yield level == one, (key - one).clamp(max=LEVEL).exp()  # no target of this level reads what is clamped


def _safe(den: Tensor) -> Tensor:
    """The denominators, infinite where nothing is read."""
    return den.masked_fill(den == 0, float("inf"))


@torch.library.custom_op("aft_lens::prefix_mean", mutates_args=())
def prefix_mean(key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The mean `b t d` of each position's value and those before it, in float32 or wider, and in float64.

    Keys of -inf are not read; where none is readable the mean is 0.
    """
    wide, read = key.double(), value.double().masked_fill(key == float("-inf"), 0.0)
    mean = torch.zeros_like(wide)
    for here, weight in _passes(wide):
        found = (weight * read).cumsum(1) / _safe(weight.cumsum(1))
        mean = found if here is None else torch.where(here, found, mean)
    return mean.to(accumulate_dtype(key, value), copy=True), mean


@prefix_mean.register_fake
def _(key, value):
    return value.new_empty(value.shape, dtype=accumulate_dtype(key, value)), value.new_empty(
        value.shape, dtype=torch.float64
    )


@torch.library.custom_op("aft_lens::prefix_mean_backward", mutates_args=())
def prefix_mean_backward(gradient: Tensor, key: Tensor, value: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of key and value: e^K (V A - B) and e^K A of the sums A of g / den and B of g mean / den from s on."""
    wide, read = key.double(), value.double().masked_fill(key == float("-inf"), 0.0)
    grad_key, grad_value = torch.zeros_like(wide), torch.zeros_like(wide)
    for here, weight in _passes(wide):
        share = gradient / _safe(weight.cumsum(1))
        share = share if here is None else share.masked_fill(~here, 0.0)
        part = weight * _onwards(share)
        grad_value += part
        grad_key += part * read - weight * _onwards(share * mean)
    return grad_key.to(key.dtype), grad_value.to(value.dtype)


def _onwards(x: Tensor) -> Tensor:
    """Sums from each position to the last."""
    return x.flip(1).cumsum(1).flip(1)


@prefix_mean_backward.register_fake
def _(gradient, key, value, mean):
    return torch.empty_like(key, memory_format=torch.contiguous_format), torch.empty_like(
        value, memory_format=torch.contiguous_format
    )


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, gradient, _mean):
    return prefix_mean_backward(gradient, *ctx.saved_tensors)


prefix_mean.register_autograd(_differentiate, setup_context=_setup)
