"""gpu_h100.json as the Markdown that the README shows, and its figure: `aft-lens bench gpu_table`."""

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analyses.bench.gpu_figure import draw
from analyses.bench.gpu_record import CONTESTS, NAME, PASSES, WORDS, Contest, ratios
from analyses.bench.gpu_roofline import COUNTED, PUBLISHED, Roofline, copy_rate, roofline
from analyses.provenance import RESULTS

BIASED = ("aft_conv", "indexed", "eq6", "local_causal", "local_causal_torch")
"""Operators whose rows' window means something."""
NONE = "–"


def command(out: Path | None = None) -> None:
    """Print the tables of gpu_h100.json and draw its figure anew; FileNotFoundError with the next step without one."""
    folder = out or RESULTS
    path = folder / f"{NAME}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; make it with `aft-lens bench gpu` on a GPU")
    record = json.loads(path.read_text())
    print(markdown(record))
    for drawn in draw(record, folder, NAME):
        print(f"wrote {drawn}", file=sys.stderr)


def markdown(record: Mapping[str, Any]) -> str:
    """Ratios, operators, models and rooflines, and what they were measured on."""
    return "\n\n".join(
        [
            ratio_table(record),
            operator_table(record["operators"]),
            model_table(record["models"]),
            roofline_table(record),
            f"{record['method']} The quartiles of a time lie at most {100 * _spread(record['operators']):.1f} % of it "
            f"apart. On {record['hardware']}, PyTorch {record['versions']['torch']}. Made by: `{record['command']}`",
        ]
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A Markdown table whose first `words` columns are words, the others figures."""
    rule = ["---"] * words + ["---:"] * (len(header) - words)
    return "\n".join(["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)])


def ratio_table(record: Mapping[str, Any]) -> str:
    """Every ratio beside its aim and least, "–" where it was not measured."""
    found = ratios(record["operators"], record["models"])
    rows = [_contest_row(record, contest, found.get(contest.key)) for contest in CONTESTS]
    return table(("Compared", "Ours", "Theirs", "Ratio", "Aim", "At least", "Met"), rows)


def operator_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Times, peak memory above the inputs and relative error of every operator and shape."""
    lines = []
    for row in sorted(rows, key=_place):
        name = row["operator"]
        lines.append(
            [
                *(WORDS.get(name, name), _grid(row), str(row["batch"]), _or_none(row["heads"] or None, "d")),
                _or_none(row["window"] if name in BIASED else None, "d"),
                *(_or_none(row.get(column, {}).get("median"), ",.1f") for column in PASSES),
                _or_none(row.get("peak_mib"), ",.0f"),
                _or_none(row.get("error"), ".1e"),
            ]
        )
    passes = [f"{words.capitalize()}, µs" for words in PASSES.values()]
    return table(("Operator", "Grid", "Batch", "Heads", "Window", *passes, "Peak, MiB", "Error"), lines)


def model_table(models: Mapping[str, Mapping[str, float]]) -> str:
    """Images a second and peak memory of every model."""
    lines = [
        [f"`{name}`", *(_or_none(row.get(column), ",.0f") for column in ("inference", "training")),
         _or_none(row.get("peak_gib"), ".2f")]
        for name, row in models.items()
    ]  # fmt: skip
    return table(("Model", "Inference, images/s", "Training, images/s", "Peak, GiB"), lines)


def roofline_table(record: Mapping[str, Any]) -> str:
    """What AFT-conv's rows must move and multiply, the bound of that, and the rates reached."""
    lines = []
    for row in sorted(record["operators"], key=_place):
        for column, words in PASSES.items():
            if row["operator"] in COUNTED and column in row:
                name = f"{WORDS[row['operator']]} {row['window']}, {_grid(row)}, {row['heads']} heads"
                lines.append([name, words, *_roofline_cells(roofline(record, row, column))])
    header = (
        "Operator", "Pass", "MB", "GFLOP", "Bound, µs", "Measured, µs", "GB/s", "Of the copy's", "TFLOP/s",
        "Of the peak",
    )  # fmt: skip
    return table(header, lines, words=2) + "\n\n" + _limits(record)


def _place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What rows are ordered by: grids of two sides before lines, small before large, then as in WORDS."""
    order, name = list(WORDS), row["operator"]
    number = order.index(name) if name in order else len(order)
    return (row["grid"][0] == 1, math.prod(row["grid"]), number, name, row["heads"], row["window"])


def _contest_row(record: Mapping[str, Any], contest: Contest, ratio: float | None) -> list[str]:
    sides = [entry.read(record["operators"], record["models"]) for entry in (contest.ours, contest.theirs)]
    met = NONE if ratio is None else "yes" if contest.met(ratio) else "no"
    cells = [_quantity(contest.ours.column, value) for value in sides]
    sign = "≥" if contest.larger_is_better else "≤"
    return [contest.words, *cells, _or_none(ratio, ".3f"), f"{contest.aim:g}", f"{sign} {contest.least:g}", met]


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


def _limits(record: Mapping[str, Any]) -> str:
    """The rates that the bounds are taken from."""
    copies = [copy_rate(record["operators"], row) for row in record["operators"] if row["operator"] == "copy"]
    rates = [rate / 1e9 for rate in copies if rate is not None]
    text = (
        "Bytes: Q, K, V read and Y written; trained, Q, K, V, dY read and dQ, dK, dV written besides. Operations: "
        "matrix products alone, tiles' padding left out. Bound: the longer of the bytes at the copy's rate and the "
        "operations at the published peak."
    )
    if rates:
        text += f" The copies ran at {min(rates):,.0f} to {max(rates):,.0f} GB/s."
    if record["hardware"] in PUBLISHED:
        bandwidth, matrix = PUBLISHED[record["hardware"]]
        text += f" Published: {bandwidth / 1e9:,.0f} GB/s and {matrix / 1e12:,.0f} TFLOP/s (dense bfloat16)."
    return text


def _spread(rows: Iterable[Mapping[str, Any]]) -> float:
    """Largest distance between the quartiles of a time, relative to its median."""
    times = [row[column] for row in rows for column in PASSES if column in row]
    return max(((time["high"] - time["low"]) / time["median"] for time in times), default=0.0)


def _grid(row: Mapping[str, Any]) -> str:
    return " × ".join(map(str, row["grid"]))


def _or_none(value: float | None, form: str) -> str:
    return NONE if value is None else f"{value:{form}}"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.0f} %"
