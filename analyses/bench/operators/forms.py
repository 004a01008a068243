"""Every form at every shape: is the one that `auto` takes the fastest?"""

import statistics
from functools import partial

from torch import Tensor

from aft_lens.ops import BiasFactors, aft_local
from aft_lens.ops.inspection import conv_form, local_form, local_form_held
from analyses.bench.operators.contestants import DIM, conv, leaf, tokens
from analyses.bench.operators.measure import Contestant, interleaved
from analyses.bench.operators.record import FormTimes

GRIDS = [((8, 8), 4, 7), ((14, 14), 8, 3), ((14, 14), 8, 11), ((14, 14), 8, 15), ((28, 28), 2, 11), ((28, 28), 2, 25)]
"""Grid, batch and window of the 2-D shapes, each with one, few, some and many heads (causal they have one form)."""
LARGEST_MATMUL = 100_000
"""Heads times positions up to which every form is timed; beyond, products with all pairs take seconds."""
HEADS = (1, 6, 32, 384)
LINES = [
    (64, 8, 31),
    (196, 8, 5),
    (196, 8, 31),
    (196, 8, 129),
    (1024, 2, 5),
    (1024, 2, 65),
    (1024, 2, 257),
    (4096, 1, 33),
]
"""Length, batch and window of the 1-D shapes."""
LINE_HEADS = (1, 32)
LOCALS = [
    (64, 8, 16),
    (196, 8, 8),
    (196, 8, 64),
    (196, 8, 128),
    (400, 4, 32),
    (1024, 2, 32),
    (1024, 2, 512),
    (3072, 1, 256),
]
"""Length, batch and window size of AFT-local."""


def form_table(rounds: int, *, quick: bool = False) -> list[FormTimes]:
    """A row a shape: milliseconds of each form, the one that auto takes, the best, and auto's time over it."""
    rows = []
    for grid, batch, window in GRIDS[:1] if quick else GRIDS:
        for heads in HEADS:
            forms = ["matmul", "convolution"] if heads * grid[0] * grid[1] <= LARGEST_MATMUL else ["convolution"]
            rows.append(_conv_row(grid, batch, window, heads, False, forms, rounds))
    for length, batch, window in LINES[:1] if quick else LINES:
        for heads in LINE_HEADS:
            for causal in (False, True):
                forms = ["matmul", "banded"] if causal else ["matmul", "banded", "convolution"]
                if length * heads > LARGEST_MATMUL:
                    forms.remove("matmul")
                rows.append(_conv_row((length,), batch, window, heads, causal, forms, rounds))
    for length, batch, window in LOCALS[:1] if quick else LOCALS:
        for causal in (False, True):
            rows.append(_local_row(length, batch, window, causal, rounds))
    return rows


def _conv_row(
    grid: tuple[int, ...], batch: int, window: int, heads: int, causal: bool, forms: list[str], rounds: int
) -> FormTimes:
    size = (window,) * len(grid)
    auto = conv_form(grid, size, images=batch, heads=heads, channels=DIM // heads, causal=causal, device="cpu")
    shape = f"conv grid {'x'.join(map(str, grid))} window {window} heads {heads} batch {batch}{' causal' * causal}"
    make = partial(conv, batch, grid, heads=heads, window=window, causal=causal)
    return _row(shape, auto, {form: make(form=form) for form in forms}, rounds)


def _local_row(length: int, batch: int, window: int, causal: bool, rounds: int) -> FormTimes:
    """AFT-local with the band of chunks or every pair, by taking the choice out of its hands."""

    def make(form: str) -> Contestant:
        class Held(Contestant):
            def __call__(self) -> None:
                with local_form_held(form):
                    super().__call__()

        def run(query: Tensor, key: Tensor, value: Tensor, u: Tensor, v: Tensor) -> Tensor:
            return aft_local(query, key, value, BiasFactors(u, v), window, causal=causal)

        return Held(run, [*tokens(batch, length), leaf(length, 128, scale=0.1), leaf(length, 128, scale=0.1)])

    auto = local_form(length, window)
    shape = f"local length {length} window {window} batch {batch}{' causal' * causal}"
    return _row(shape, auto, {form: make(form) for form in ("band", "rows")}, rounds)


def _row(shape: str, auto: str, contestants: dict[str, Contestant], rounds: int) -> FormTimes:
    times = interleaved(contestants, rounds)
    medians = {form: statistics.median(values) for form, values in times.items()}
    best = min(medians, key=lambda form: medians[form])
    return FormTimes(shape, medians, auto, best, medians[auto] / medians[best])
