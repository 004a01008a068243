"""Which calls the kernel written for Hopper GPUs takes."""

import torch

from aft_lens.ops.kernels.launch import Geometry, Tiles
from aft_lens.ops.kernels.tiles import INTERPRETED

try:
    from aft_lens.ops.kernels.dense_forward_hopper import forward_hopper_kernel
except ImportError:  # Gluon is experimental: Triton may lack it or one of its names
    forward_hopper_kernel = None

TILES = Tiles(64, 256, b_steps=4)


def capability(device: torch.device) -> tuple[int, int] | None:
    """Compute capability of an NVIDIA GPU; None for any other device."""
    if device.type != "cuda" or torch.version.hip is not None:  # ROCm counts its own generations from 9 as well
        return None
    return torch.cuda.get_device_capability(device)


def takes(geometry: Geometry, c: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the forward pass of such values runs on Hopper's kernel: its tiles fit 129 to 256 positions alone."""
    if forward_hopper_kernel is None or INTERPRETED.value:
        return False
    fits = c == 1 and geometry.block == TILES.block_t and dtype in (torch.bfloat16, torch.float16)
    return fits and (capability(device) or (0, 0))[0] == 9
