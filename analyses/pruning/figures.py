"""The ladder as a text table, JSON, CSV and figures."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure
from plotly.subplots import make_subplots


class Row(Protocol):
    """What the figures read of a rung."""

    name: str
    keep: float
    accuracy: float
    accuracy_interval: tuple[float, float]
    bytes: int
    latency_mean_ms: float
    latency_sd_ms: float


def table(rows: Sequence[Any]) -> str:
    """Rungs as an aligned text table: offsets a head, accuracy and its change, max |Δlogit|, size, latency."""
    head = ("rung", "k", "accuracy %", "change", "max |Δlogit|", "kB", "ms / batch", "form")
    lines = [head]
    for row in rows:
        low, high = (100 * end for end in row.accuracy_interval)
        lines.append(
            (
                row.name,
                f"{row.keep:g}" if row.keep == int(row.keep) else f"{row.keep:.2f}",
                f"{100 * row.accuracy:.2f} [{low:.1f}, {high:.1f}]",
                f"{100 * row.difference:+.2f}",
                f"{row.max_logit_difference:.1e}",
                f"{row.bytes / 1e3:.1f}",
                f"{row.latency_mean_ms:.2f} ± {row.latency_sd_ms:.2f}",
                row.form,
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def save_ladder(rows: Sequence[Any], record: Mapping[str, object], out: Path) -> list[Path]:
    """Write ladder.json, ladder.csv, ladder.png, ladder.svg and ladder.html into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"ladder.{end}" for end in ("json", "csv", "png", "svg", "html")]
    paths[0].write_text(json.dumps(record, indent=1) + "\n")
    write_csv([asdict(row) for row in rows], paths[1])
    figure = draw(rows)
    for path in paths[2:4]:
        figure.savefig(path, dpi=150)
    interactive(rows).write_html(paths[4], include_plotlyjs=True)
    return paths


def write_csv(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write records as CSV, by `flat`."""
    lines = [flat(row) for row in rows]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for line in lines for name in line)))
        writer.writeheader()
        writer.writerows(lines)


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's numbers and words by column: an interval as _low and _high, latencies by model, device and batch."""
    line: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("_interval"):
            line[name.replace("interval", "low")], line[name.replace("interval", "high")] = value or (None, None)
        elif name == "latencies":
            for model, times in (value if isinstance(value, Mapping) else {"": value}).items():
                for each in times:
                    where = "_".join(filter(None, (model, "cpu" if each["device"] == "cpu" else "gpu")))
                    for number in ("mean_ms", "sd_ms", "median_ms"):
                        line[f"{where}_batch_{each['batch']}_{number}"] = each[number]
        elif not isinstance(value, (list, tuple, Mapping)):
            line[name] = value
    return line


def draw(rows: Sequence[Row]) -> Figure:
    """Accuracy, size and latency by rung, with intervals where there are any."""
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
    place = range(len(rows))
    names = [row.name for row in rows]
    for axis, values, label in (
        (left, [100 * row.accuracy for row in rows], "accuracy (%)"),
        (middle, [row.bytes / 1e3 for row in rows], "model.safetensors (kB)"),
        (right, [row.latency_mean_ms for row in rows], "latency (ms a batch)"),
    ):
        axis.bar(place, values, color=sns.color_palette("deep", len(rows)))
        axis.set_xticks(place, names, rotation=30, ha="right")
        axis.set_title(label)
    low = [100 * (row.accuracy - row.accuracy_interval[0]) for row in rows]
    high = [100 * (row.accuracy_interval[1] - row.accuracy) for row in rows]
    left.errorbar(place, [100 * row.accuracy for row in rows], yerr=[low, high], fmt="none", ecolor="black")
    spread = [row.latency_sd_ms for row in rows]
    right.errorbar(place, [row.latency_mean_ms for row in rows], yerr=spread, fmt="none", ecolor="black")
    return figure


def interactive(rows: Sequence[Row]) -> go.Figure:
    """The same three panels as an interactive figure."""
    figure = make_subplots(1, 3, subplot_titles=("accuracy (%)", "model.safetensors (kB)", "latency (ms a batch)"))
    names = [row.name for row in rows]
    panels = (
        ([100 * row.accuracy for row in rows], None),
        ([row.bytes / 1e3 for row in rows], None),
        ([row.latency_mean_ms for row in rows], [row.latency_sd_ms for row in rows]),
    )
    for column, (values, spread) in enumerate(panels, start=1):
        error = None if spread is None else {"type": "data", "array": spread}
        figure.add_trace(go.Bar(x=names, y=values, error_y=error), row=1, col=column)
    figure.update_layout(showlegend=False, title="Pruning to indexing")
    return figure
