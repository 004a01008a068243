"""What benches see of the forms: which one a shape takes, one held against the choice, and what kernels multiply."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import torch

from aft_lens.ops.forms import choice, depthwise
from aft_lens.ops.forms.choice import conv_form, local_form
from aft_lens.ops.forms.indexed_mean import LARGEST, MOST_NEGATIVE, indexed_form
from aft_lens.ops.forms.simple_sums import simple_by_prefix_sums
from aft_lens.ops.full import local_by_products
from aft_lens.ops.kernels.band.launch import Band
from aft_lens.ops.kernels.launch import LARGEST_DENSE

__all__ = [
    "LARGEST",
    "MOST_NEGATIVE",
    "conv_form",
    "indexed_form",
    "kernel_pairs",
    "local_by_products",
    "local_form",
    "local_form_held",
    "simple_by_prefix_sums",
    "unsafe_convolution",
]


@contextmanager
def unsafe_convolution() -> Iterator[None]:
    """Inside, AFT-conv by convolution takes Eq. 6's own sum whatever the bias is, which may cancel."""
    with patch.object(depthwise, "MILD", float("-inf")):
        yield


@contextmanager
def local_form_held(form: str) -> Iterator[None]:
    """Inside, AFT-local takes the form of that name ("band" or "rows") at every shape."""
    with patch.object(choice, "local_form", lambda *_: form):
        yield


def kernel_pairs(grid: Sequence[int], heads: int, window: int) -> int:
    """Pairs of target and source that the AFT-conv kernels multiply for one channel, padding of tiles left out.

    Grids up to `LARGEST_DENSE` positions take every pair: T^2. Larger ones are cut into patches of 64 targets, 8 x 8
    (those at an edge whole), each with its halo of sources: 8 + s - 1 rows by 8 columns and as many strips of 8 beyond
    either side as hold (s - 1) / 2.
    """
    positions = math.prod(grid)
    if positions <= LARGEST_DENSE:
        return positions**2
    band = Band.of(grid, torch.empty(heads, window, window, device="meta"), torch.bfloat16)
    return math.prod(band.patches) * band.targets * band.depth(1)
