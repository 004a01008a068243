"""gpu_h100.json as tables: ratios, operators, models and rooflines, and what they were measured on."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from analyses.bench.gpu.comparisons import COMPARISONS, Comparison, ratios
from analyses.bench.gpu.record import PASSES, WORDS, GPURecord, ModelRow, OperatorRow
from analyses.bench.gpu.roofline import COUNTED, PUBLISHED, Roofline, copy_rate, roofline
from analyses.result import Table

BIASED = ("aft_conv", "prepared", "indexed", "eq6", "masked", "flex", "depthwise", "local_causal", "local_causal_torch")
"""Operators whose rows' window means something."""
NONE = "–"


def markdown(measured: GPURecord) -> str:
    """Ratios, operators, models and rooflines, and what they were measured on."""
    rooflines = roofline_table(measured)
    return "\n\n".join(
        [
            ratio_table(measured).markdown(),
            operator_table(measured.operators).markdown(),
            model_table(measured.models).markdown(),
            rooflines.markdown(),
            rooflines.note,
            made_on(measured),
        ]
    )


def made_on(measured: GPURecord) -> str:
    """Method, spread, hardware, PyTorch and command."""
    left_out = "".join(f" Not run: {words}." for words in measured.left_out)
    return (
        f"{measured.method}{left_out} The quartiles of a time lie at most {100 * _spread(measured.operators):.1f} % of "
        f"it apart. On {measured.hardware}, PyTorch {measured.versions['torch']}. Made by: `{measured.command}`"
    )


def ratio_table(measured: GPURecord) -> Table:
    """Every ratio beside its aim and least, "–" where it was not measured."""
    found = ratios(measured)
    rows = [_comparison_row(measured, comparison, found.get(comparison.key)) for comparison in COMPARISONS]
    return Table(("Compared", "Ours", "Theirs", "Ratio", "Aim", "At least", "Met"), rows, words=1)


def operator_table(rows: Iterable[OperatorRow]) -> Table:
    """Times, peak memory above the inputs and relative error of every operator and shape."""
    lines = []
    for row in sorted(rows, key=_place):
        times = [row.time(column) for column in PASSES]
        lines.append(
            [
                *(_name(row), _grid(row), str(row.batch), _or_none(row.heads or None, "d")),
                _or_none(row.window if row.operator in BIASED else None, "d"),
                *(_or_none(None if time is None else time.median, ",.1f") for time in times),
                _or_none(row.peak_mib, ",.0f"),
                _or_none(row.error, ".1e"),
            ]
        )
    passes = [f"{words.capitalize()}, µs" for words in PASSES.values()]
    return Table(("Operator", "Grid", "Batch", "Heads", "Window", *passes, "Peak, MiB", "Error"), lines, words=1)


def model_table(models: Mapping[str, ModelRow]) -> Table:
    """Images a second and peak memory of every model."""
    lines = [
        [f"`{name}`", f"{row.inference:,.0f}", f"{row.training:,.0f}", f"{row.peak_gib:.2f}"]
        for name, row in models.items()
    ]
    return Table(("Model", "Inference, images/s", "Training, images/s", "Peak, GiB"), lines, words=1)


def roofline_table(measured: GPURecord) -> Table:
    """What AFT-conv's rows must move and multiply, the bound of that, and the rates reached."""
    lines = []
    for row in sorted(measured.operators, key=_place):
        for column, words in PASSES.items():
            if row.operator in COUNTED and row.time(column) is not None:
                name = f"{WORDS[row.operator]} {row.window}, {_grid(row)}, {row.heads} heads"
                lines.append([name, words, *_roofline_cells(roofline(measured, row, column))])
    header = (
        "Operator", "Pass", "MB", "GFLOP", "Bound, µs", "Measured, µs", "GB/s", "Of the copy's", "TFLOP/s",
        "Of the peak",
    )  # fmt: skip
    return Table(header, lines, note=_limits(measured), words=2)


def _place(row: OperatorRow) -> tuple[Any, ...]:
    """What rows are ordered by: grids of two sides before lines, small before large, then as in WORDS."""
    order, name = list(WORDS), row.operator
    number = order.index(name) if name in order else len(order)
    return (row.grid[0] == 1, math.prod(row.grid), number, name, row.heads, row.window)


def _name(row: OperatorRow) -> str:
    """What an operator is called, with its backend where one was picked."""
    words = WORDS.get(row.operator, row.operator)
    return words if row.backend is None else f"{words} ({row.backend.replace('_attention', '')})"


def _comparison_row(measured: GPURecord, comparison: Comparison, ratio: float | None) -> list[str]:
    sides = [entry.read(measured) for entry in (comparison.ours, comparison.theirs)]
    met = NONE if ratio is None else "yes" if comparison.met(ratio) else "no"
    cells = [_quantity(comparison.ours.column, value) for value in sides]
    return [
        comparison.words,
        *cells,
        _or_none(ratio, ".3f"),
        f"{comparison.aim:g}",
        comparison.asked,
        met,
    ]


def _quantity(column: str, value: float | None) -> str:
    """A side of a ratio with its unit; images/s are named in the row's words."""
    if value is None or column in ("inference", "training"):
        return _or_none(value, ",.0f")
    return f"{value:.2f} GiB" if column == "peak_gib" else f"{value:,.1f} µs"


def _roofline_cells(found: Roofline) -> list[str]:
    bounds = {"bytes": found.by_bytes, "operations": found.by_operations}
    known = [(bound, words) for words, bound in bounds.items() if bound is not None]
    largest = max(known, default=None)
    copied = None if found.copy_rate is None else found.rate / found.copy_rate
    share = None if found.matrix_peak is None else found.operation_rate / found.matrix_peak
    return [
        f"{found.moved / 1e6:,.1f}",
        f"{found.operations / 1e9:,.1f}",
        NONE if largest is None else f"{largest[0]:,.1f} ({largest[1]})",
        f"{found.microseconds:,.1f}",
        f"{found.rate / 1e9:,.0f}",
        _percent(copied),
        f"{found.operation_rate / 1e12:,.1f}",
        _percent(share),
    ]


def _limits(measured: GPURecord) -> str:
    """The rates that the bounds are taken from."""
    copies = [copy_rate(measured.operators, row) for row in measured.operators if row.operator == "copy"]
    rates = [rate / 1e9 for rate in copies if rate is not None]
    text = (
        "Bytes: Q, K, V read and Y written; trained, Q, K, V, dY read and dQ, dK, dV written besides. Operations: "
        "matrix products alone, tiles' padding left out. Bound: the longer of the bytes at the copy's rate and the "
        "operations at the published peak."
    )
    if rates:
        text += f" The copies ran at {min(rates):,.0f} to {max(rates):,.0f} GB/s."
    if measured.hardware in PUBLISHED:
        bandwidth, matrix = PUBLISHED[measured.hardware]
        text += f" Published: {bandwidth / 1e9:,.0f} GB/s and {matrix / 1e12:,.0f} TFLOP/s (dense bfloat16)."
    return text


def _spread(rows: Iterable[OperatorRow]) -> float:
    """Largest distance between the quartiles of a time, relative to its median."""
    times = [time for row in rows for column in PASSES if (time := row.time(column)) is not None]
    return max(((time.high - time.low) / time.median for time in times), default=0.0)


def _grid(row: OperatorRow) -> str:
    return " × ".join(map(str, row.grid))


def _or_none(value: float | None, form: str) -> str:
    return NONE if value is None else f"{value:{form}}"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.0f} %"
