"""Which calls the kernels take, and the calls themselves."""

import logging
import math
import os
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from aft_lens.ops.bias import BiasFactors, PreparedBias
from aft_lens.ops.forms.causal_window import causal_window_bias
from aft_lens.ops.kernels import AVAILABLE
from aft_lens.ops.kernels.band import launch as band
from aft_lens.ops.kernels.indexed.launch import LARGEST_INDEXED, MOST_KEPT
from aft_lens.ops.kernels.launch import LARGEST_DENSE

if AVAILABLE:
    from aft_lens.ops.kernels.band.operator import band_forward
    from aft_lens.ops.kernels.dense.operator import dense_expand, dense_forward, dense_inference, dense_prepared
    from aft_lens.ops.kernels.indexed.operator import indexed_forward
    from aft_lens.ops.kernels.scan.local import scan_local, scan_local_inference
    from aft_lens.ops.kernels.scan.pool import pool_simple
    from aft_lens.ops.kernels.scan.simple import scan_simple, scan_simple_inference
    from aft_lens.ops.kernels.scan.window_bias import window_bias

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LARGEST_WINDOW = 4096
"""Most biases of a head that a kernel holds at once."""
logger = logging.getLogger(__name__)
_told: set[tuple[str, str]] = set()


def unfit(value: Tensor, *others: Tensor | None) -> str | None:
    """Why no kernel takes tensors of this device and these dtypes, to follow "the kernels"; None if one may."""
    if not AVAILABLE:
        return "need Triton, which is not installed"
    if not value.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        return f"run on CUDA, got device {value.device.type}"
    wrong = next((x.dtype for x in (value, *others) if x is not None and x.dtype not in DTYPES), None)
    return None if wrong is None else f"take float32, bfloat16 and float16, got {wrong}"


def refusal(
    value: Tensor, *others: Tensor | None, window: Sequence[int], grid: Sequence[int], causal: bool = False,
    outside: str = "global",
) -> str | None:  # fmt: skip
    """Why the kernels cannot take this AFT-conv, to follow "the kernels"; None if they can."""
    reason = unfit(value, *others)
    if reason is not None:
        return reason
    if causal or outside != "global":
        return 'have no causal form and none for outside="none"'
    if value.numel() == 0:
        return "take no empty tensors"
    if math.prod(window) > LARGEST_WINDOW:
        return f"take windows of at most {LARGEST_WINDOW} offsets, got {tuple(window)}"
    return None if math.prod(grid) <= LARGEST_DENSE else band.refusal(grid, window)


def conv(
    query: Tensor | None,
    key: Tensor,
    value: Tensor,
    position_bias: Tensor,
    grid: Sequence[int],
    *,
    query_bias: Tensor | None = None,
    value_bias: Tensor | None = None,
    prepared: PreparedBias | None = None,
) -> Tensor:
    """AFT-conv of query and value `b h c t` and key `b h t`, with biases (`d`) of their projections still to add.

    Fastest where memory runs `h c b t`, as a projection W x^T leaves it. The result runs the same way.
    """
    if not torch.compiler.is_compiling():
        logger.debug("AFT-conv by Triton kernels: grid %s, heads %d, %s", tuple(grid), key.shape[1], value.dtype)
    tensors = (query, key, value, position_bias, query_bias, value_bias)
    if math.prod(grid) > LARGEST_DENSE:
        return band_forward(*tensors, list(grid))[0]
    if _asks_gradient(*tensors):
        return dense_forward(*tensors, list(grid))[0]
    if prepared is not None:
        return dense_prepared(*tensors, prepared.e, prepared.span, list(grid))
    return dense_inference(*tensors, list(grid))


def prepared(position_bias: Tensor, grid: tuple[int, ...], dtype: torch.dtype) -> Tensor | PreparedBias:
    """A bias as the dense kernels read it, or as it is where they do not take it."""
    w = position_bias.detach()
    like = w.new_empty(1, dtype=dtype)
    if refusal(like, w, window=w.shape[1:], grid=grid) is not None or math.prod(grid) > LARGEST_DENSE:
        return w
    e, span = dense_expand(w, list(grid), dtype)
    return PreparedBias(w, e, span, grid, dtype)


def _asks_gradient(*tensors: Tensor | None) -> bool:
    """Whether what only gradients need is to be written."""
    return torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors)


def exporting() -> bool:
    """Whether torch.export is tracing. Under torch.compile PyTorch 2.11 takes `is_exporting()` itself for True."""
    return torch.compiler._is_exporting_flag


def indexed_refusal(value: Tensor, *others: Tensor | None, keep: int, grid: Sequence[int]) -> str | None:
    """Why the kernels cannot take AFT-conv with `keep` offsets a head, to follow "the kernels"; None if they can."""
    if value.numel() == 0:
        return "take no empty tensors"
    if keep > MOST_KEPT:
        return f"take at most {MOST_KEPT} offsets a head, got {keep}"
    if len(grid) > 2 or math.prod(grid) > LARGEST_INDEXED:
        return f"take 1-D and 2-D grids of at most {LARGEST_INDEXED} positions, got {tuple(grid)}"
    return unfit(value, *others)


def indexed(
    query: Tensor | None,
    key: Tensor,
    value: Tensor,
    position_bias: Tensor,
    offset: Tensor,
    grid: Sequence[int],
    *,
    query_bias: Tensor | None = None,
    value_bias: Tensor | None = None,
) -> Tensor:
    """AFT-conv with bias `h k` at offsets `h k n` alone; everything else as in `conv`."""
    if not torch.compiler.is_compiling():
        keep = position_bias.shape[1]
        logger.debug("indexed AFT-conv by Triton kernels: grid %s, %d kept, %s", tuple(grid), keep, value.dtype)
    return indexed_forward(query, key, value, position_bias, offset, query_bias, value_bias, list(grid))[0]


def scan_refusal(value: Tensor, *others: Tensor | None, local: bool = False, causal: bool = True) -> str | None:
    """Why the kernels cannot take this AFT-simple or (`local`) AFT-local, to follow "the kernels"; None if they can."""
    if local and not causal:
        return "take causal AFT-local alone"
    return "take no empty tensors" if value.numel() == 0 else unfit(value, *others)


def simple(query: Tensor | None, key: Tensor, value: Tensor, *, causal: bool) -> Tensor:
    """AFT-simple of `b t d`; keys of -inf are read by no target. Fastest where channels are contiguous."""
    if not torch.compiler.is_compiling():
        logger.debug("AFT-simple by Triton kernels: causal %s, %s, %s", causal, tuple(value.shape), value.dtype)
    if not causal:
        return pool_simple(query, key, value)[0]
    if _asks_gradient(query, key, value):
        return scan_simple(query, key, value)[0]
    return scan_simple_inference(query, key, value)


def local(query: Tensor | None, key: Tensor, value: Tensor, band: Tensor) -> Tensor:
    """Causal AFT-local of `b t d` with biases `t offset`, offset = target - source; 0 beyond them."""
    if not torch.compiler.is_compiling():
        window = band.shape[1]
        logger.debug("AFT-local by Triton kernels: window %d, %s, %s", window, tuple(value.shape), value.dtype)
    if _asks_gradient(query, key, value, band):
        return scan_local(query, key, value, band)[0]
    return scan_local_inference(query, key, value, band)


def causal_band(position_bias: Tensor | BiasFactors, window_size: int) -> Tensor:
    """The biases that `local` takes, `t offset`, from a `t t` bias or its factors; float32."""
    if isinstance(position_bias, BiasFactors):
        return window_bias(position_bias.target.float(), position_bias.source.float(), window_size)
    return causal_window_bias(position_bias, window_size)


def tell(reason: str, operator: str = "AFT-conv") -> None:
    """Warn once for each reason that a call on a GPU goes without the kernels."""
    if not torch.compiler.is_compiling() and (operator, reason) not in _told:
        _told.add((operator, reason))
        warnings.warn(f"{operator} runs without Triton kernels: they {reason}", stacklevel=3)
