"""Which calls the kernels take, and the calls themselves."""

import logging
import math
import os
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from aft_lens.ops.kernels import AVAILABLE
from aft_lens.ops.kernels.launch import LARGEST_DENSE

if AVAILABLE:
    from aft_lens.ops.kernels.dense import dense_forward

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LARGEST_WINDOW = 4096
"""Most biases of a head that a kernel holds at once."""
logger = logging.getLogger(__name__)
_told: set[str] = set()


def refusal(
    value: Tensor, window: Sequence[int], grid: Sequence[int], *, causal: bool = False, outside: str = "global"
) -> str | None:
    """Why the kernels cannot take this AFT-conv, to follow "the kernels"; None if they can."""
    if not AVAILABLE:
        return "need Triton, which is not installed"
    if not value.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return f"run on CUDA, got device {value.device.type}"
    if value.dtype not in DTYPES:
        return f"take float32, bfloat16 and float16, got {value.dtype}"
    if causal or outside != "global":
        return 'have no causal form and none for outside="none"'
    if math.prod(grid) > LARGEST_DENSE:
        return f"take grids of at most {LARGEST_DENSE} positions, got {tuple(grid)}"
    if math.prod(window) > LARGEST_WINDOW:
        return f"take windows of at most {LARGEST_WINDOW} offsets, got {tuple(window)}"
    return None


def conv(
    query: Tensor | None,
    key: Tensor,
    value: Tensor,
    position_bias: Tensor,
    grid: Sequence[int],
    *,
    query_bias: Tensor | None = None,
    value_bias: Tensor | None = None,
) -> Tensor:
    """AFT-conv of query and value `b h c t` and key `b h t`, with biases (`d`) of their projections still to add.

    Fastest where memory runs `h c b t`, as a projection W x^T leaves it. The result runs the same way.
    """
    if not torch.compiler.is_compiling():
        logger.debug("AFT-conv by Triton kernels: grid %s, heads %d, %s", tuple(grid), key.shape[1], value.dtype)
    return dense_forward(query, key, value, position_bias, query_bias, value_bias, list(grid))[0]


def tell(reason: str) -> None:
    """Warn once for each reason that a call on a GPU goes without the kernels."""
    if not torch.compiler.is_compiling() and reason not in _told:
        _told.add(reason)
        warnings.warn(f"AFT-conv runs without Triton kernels: they {reason}", stacklevel=3)
