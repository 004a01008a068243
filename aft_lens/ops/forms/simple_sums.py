"""AFT-simple's one mean for all targets, and its prefix sums where it is causal."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.ops.forms.prefix_mean import prefix_mean
from aft_lens.ops.gate import gate

CACHED_ELEMENTS = 2**20
"""Elements of each tensor worked on at once on a CPU, so that a step finds in its caches what the one before left."""


def simple_by_prefix_sums(
    query: Float[Tensor, "b t d"] | None, key: Float[Tensor, "b t d"], value: Float[Tensor, "b t d"]
) -> Float[Tensor, "b t d"]:
    """The PyTorch form of causal `aft_simple`, on any device; keys of -inf are not read."""
    return gate(query, prefix_mean(key, value)[0], value.dtype)


def _images(x: Tensor) -> Iterator[slice]:
    """Batches whose part of `x` stays in a CPU's cache; the whole batch elsewhere."""
    size = max(1, CACHED_ELEMENTS // max(1, x.shape[1:].numel())) if x.device.type == "cpu" else len(x)
    for start in range(0, len(x), size):
        yield slice(start, start + size)


class SimpleMean(torch.autograd.Function):
    """sigmoid(query) sum_s softmax(key)_s value_s, a few images at a time; the only T x d buffers are the results."""

    @staticmethod
    def forward(ctx, query, key, value):
        """Output `b t d`; keeps the inputs and, `b 1 d` each, the largest key, the sum of weights and the mean."""
        peak, den, mean = key.new_empty(3, len(key), 1, key.shape[2])
        out = torch.empty_like(value, memory_format=torch.contiguous_format)
        for part in _images(key):
            room = out[part]
            torch.amax(key[part], 1, keepdim=True, out=peak[part])
            peak[part].masked_fill_(peak[part] == float("-inf"), 0.0)  # nothing is read: 0 / 1
            weight = torch.sub(key[part], peak[part], out=room).exp_()
            torch.sum(weight, 1, keepdim=True, out=den[part])
            den[part].masked_fill_(den[part] == 0, 1.0)
            torch.sum(weight.mul_(value[part]), 1, keepdim=True, out=mean[part])
            mean[part].div_(den[part])
            if query is None:
                room.copy_(mean[part].expand_as(room))
            else:
                torch.sigmoid(query[part], out=room).mul_(mean[part])
        ctx.save_for_backward(query, key, value, peak, den, mean)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        """d value = p g, d key = p g (value - mean), p the softmax and g the mean's gradient."""
        query, key, value, peak, den, mean = ctx.saved_tensors
        like = torch.contiguous_format
        grad_query = None if query is None else torch.empty_like(query, memory_format=like)
        grad_key, grad_value = (torch.empty_like(x, memory_format=like) for x in (key, value))
        for part in _images(key):
            g = gradient[part]
            if query is not None and grad_query is not None:
                opened = torch.sigmoid(query[part], out=grad_query[part])
                g = torch.mul(g, opened, out=grad_key[part])
                torch.addcmul(g, g, opened, value=-1, out=opened).mul_(mean[part])
            total = g.sum(1, keepdim=True).div_(den[part])
            weight = torch.sub(key[part], peak[part], out=grad_value[part]).exp_().mul_(total)
            torch.sub(value[part], mean[part], out=grad_key[part]).mul_(weight)
        return grad_query, grad_key, grad_value
