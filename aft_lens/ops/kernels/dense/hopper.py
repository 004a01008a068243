"""Which calls the kernel written for Hopper GPUs takes."""

import functools
import warnings

import torch

from aft_lens.ops.kernels.launch import Geometry, Tiles
from aft_lens.ops.kernels.tiles import INTERPRETED

try:
    from aft_lens.ops.kernels.dense.forward_hopper import forward_hopper_kernel
except (ImportError, AttributeError) as error:  # Gluon is experimental: Triton may lack it or one of its names
    forward_hopper_kernel, MISSING = None, str(error)
else:
    MISSING = ""

TILES = Tiles(64, 256, b_steps=4)


def capability(device: torch.device) -> tuple[int, int] | None:
    """Compute capability of an NVIDIA GPU; None for any other device."""
    if device.type != "cuda" or torch.version.hip is not None:  # ROCm counts its own generations from 9 as well
        return None
    return torch.cuda.get_device_capability(device)


def takes(geometry: Geometry, c: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the forward pass of such values runs on Hopper's kernel: its tiles fit 129 to 256 positions alone."""
    fits = c == 1 and geometry.block == TILES.block_t and dtype in (torch.bfloat16, torch.float16)
    if INTERPRETED.value or not fits or (capability(device) or (0, 0))[0] != 9:
        return False
    if forward_hopper_kernel is None:
        _tell(MISSING)
    return forward_hopper_kernel is not None


@functools.cache
def _tell(missing: str) -> None:
    """Warn once that a Hopper GPU goes without its kernel."""
    warnings.warn(f"AFT-conv runs a slower kernel than this GPU could: Triton's Gluon is not as expected ({missing})",
                  stacklevel=4)  # fmt: skip
