"""Biases of a causal window from their factors (Eq. 7) as a custom operator."""

import torch
from torch import Tensor

from aft_lens.ops.kernels.scan.local_weights import window_bias_backward_kernel, window_bias_kernel

BLOCK = 32
"""Targets and sources of a tile."""
BLOCK_R = 32
"""Ranks taken at once."""


def _near(window: int) -> int:
    return -(-(window - 1) // BLOCK)


@torch.library.custom_op("aft_lens::window_bias", mutates_args=())
def window_bias(target: Tensor, source: Tensor, window: int) -> Tensor:
    """w = target . source of each target and offset = target - source below `window`, `t offset`.

    Both factors are `t rank`, float32. Places before the first source hold 0.
    """
    target, source = target.contiguous(), source.contiguous()
    t, rank = target.shape
    near = _near(window)
    band = torch.empty(t, window, dtype=torch.float32, device=target.device)
    window_bias_kernel[(-(-t // BLOCK) * (near + 1),)](
        target, source, band, t, rank, window, near, BLOCK, BLOCK_R, num_warps=4
    )
    return band


@window_bias.register_fake
def _(target, source, window):
    return target.new_empty(len(target), window)


@torch.library.custom_op("aft_lens::window_bias_backward", mutates_args=())
def window_bias_backward(gradient: Tensor, target: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of both factors."""
    gradient, target, source = gradient.contiguous(), target.contiguous(), source.contiguous()
    t, rank = target.shape
    window = gradient.shape[1]
    found = torch.empty_like(target), torch.empty_like(source)
    for of_sources, (x, out) in enumerate(zip((source, target), found, strict=True)):
        window_bias_backward_kernel[(-(-t // BLOCK), -(-rank // BLOCK_R))](
            gradient, x, out, t, rank, window, _near(window), BLOCK, BLOCK_R, bool(of_sources), num_warps=4
        )
    return found


@window_bias_backward.register_fake
def _(gradient, target, source):
    return torch.empty_like(target), torch.empty_like(source)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx, gradient):
    return *window_bias_backward(gradient, *ctx.saved_tensors), None


window_bias.register_autograd(_backward, setup_context=_setup)
