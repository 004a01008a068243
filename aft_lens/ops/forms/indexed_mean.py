"""The mean of AFT-conv with k offsets a head: each form, which one a bias takes, and the choice as one operation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.ops.bias import expand_offsets, source_index
from aft_lens.ops.forms.gather import gather, matmul
from aft_lens.ops.forms.one_offset import one_offset
from aft_lens.ops.forms.rowwise import row_weights, rowwise
from aft_lens.ops.forms.spec import unnarrowed

MOST_NEGATIVE = -3.0
"""Gathers of k > 1 offsets take (1 - e^w) e_s out of a total: at w >= -3 rounding grows by at most e^3 = 20."""
LARGEST = 50.0
"""Most nats between max(w, 0) and min(w, 0) of a head with k > 1 offsets. Every target reads the largest key, so up to
here den_t is at least e^-50 of it, and terms beyond float32's end at e^-87 are none of it."""
GATHERS_A_PRODUCT = 4
"""One gather of the value costs as much as this many of the matrix product's multiplications a value."""


def indexed_form(position_bias: Float[Tensor, "h k"], sources: int) -> str:
    """The form that `aft_indexed` takes by "auto" for this bias over that many sources.

    "pool" (k = 0); "gather" (k = 1); "matmul" where k gathers cost more than a matrix product, or a bias is below
    `MOST_NEGATIVE`; "rowwise" where a head's biases and 0 lie further than `LARGEST` apart.
    """
    keep = position_bias.shape[1]
    if keep <= 1:
        return "gather" if keep else "pool"
    low, high = torch.aminmax(position_bias.detach(), dim=1)
    if not float((high.clamp(min=0.0) - low.clamp(max=0.0)).max()) <= LARGEST:
        return "rowwise"
    return "matmul" if float(low.min()) < MOST_NEGATIVE or keep * GATHERS_A_PRODUCT > sources else "gather"


def mean_by(form: str, key: Tensor, value: Tensor, w: Tensor, offset: Tensor, grid: torch.Size) -> Tensor:
    """Weighted mean `b h c t` of key `b h t`, value `b h c t`, w `h k` and offset `h k n` by the form of that name."""
    if form == "rowwise":
        return rowwise(key, value, expand_offsets(w, offset, grid))
    if form == "matmul":
        return matmul(key, value, expand_offsets(w, offset, grid))
    return (one_offset if w.shape[1] == 1 else gather)(key, value, w, offset, grid)


@torch.library.custom_op("aft_lens::indexed_mean", mutates_args=())
def opaque_mean(key: Tensor, value: Tensor, w: Tensor, offset: Tensor, grid: Sequence[int]) -> Tensor:
    """`mean_by` the form that w asks for, as one operation that compilers see whole: they cannot look at w."""
    return mean_by(indexed_form(w, key.shape[-1]), key, value, w, offset, torch.Size(grid)).contiguous()


@opaque_mean.register_fake
def _(key, value, w, offset, grid):
    return torch.empty_like(value, memory_format=torch.contiguous_format)


@torch.library.custom_op("aft_lens::indexed_mean_backward", mutates_args=())
def opaque_backward(
    gradient: Tensor, key: Tensor, value: Tensor, w: Tensor, offset: Tensor, mean: Tensor, grid: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of key, value and w, an image at a time with the weights written out: right for any bias."""
    bias, (place, inside) = expand_offsets(w, offset, grid), source_index(offset, grid)
    grads = torch.zeros_like(key), torch.zeros_like(value), torch.zeros_like(w)
    with unnarrowed(key):
        for image, (g, k, v, mu) in enumerate(zip(gradient, key, value, mean, strict=True)):
            weight, unread = row_weights(k, bias)
            read = v.masked_fill((k == float("-inf")).unsqueeze(1), 0.0)
            log = weight * (g.mT @ read - (g * mu).sum(1).unsqueeze(2)).masked_fill(unread, 0.0)
            grads[0][image] = log.sum(1)
            grads[1][image] = g @ weight
            grads[2].add_((log.gather(2, place.mT).mT * inside).sum(2))
    return grads


@opaque_backward.register_fake
def _(gradient, key, value, w, offset, mean, grid):
    return torch.empty_like(key), torch.empty_like(value), torch.empty_like(w)


def _setup(ctx, inputs, output):
    *tensors, ctx.grid = inputs
    ctx.save_for_backward(*tensors, output)


def _differentiate(ctx, gradient):
    return *opaque_backward(gradient.contiguous(), *ctx.saved_tensors, ctx.grid), None, None


opaque_mean.register_autograd(_differentiate, setup_context=_setup)
