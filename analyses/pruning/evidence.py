"""A sweep's evidence folder: ladder.json, CSV, the accuracy-against-k curve, and one static page."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import seaborn as sns
from matplotlib.figure import Figure

from analyses.pruning.figures import write_csv

CONTROLS = ("random", "centre")


def line(row: dict[str, Any]) -> str:
    """A rung in one printed line."""
    tuned = row["accuracy_finetuned"]
    return (
        f"{Path(row['checkpoint']).name:20} {row['criterion']:10} {row['budget']:6} {row['schedule']:9} "
        f"k = {row['keep']:<4g} "
        f"parent {100 * row['accuracy_parent']:.2f} pruned {100 * row['accuracy_pruned']:.2f} "
        + (f"fine-tuned {100 * tuned:.2f} " if tuned is not None else "")
        + f"max |Δlogit| {row['max_abs_logit_difference']:.1e}"
    )


def write(rows: Sequence[dict[str, Any]], out: Path, environment: dict[str, Any]) -> list[Path]:
    """Write ladder.json, ladder.csv, curve.png, curve.svg and index.html into `out`."""
    paths = [out / name for name in ("ladder.json", "ladder.csv", "curve.png", "curve.svg", "index.html")]
    paths[0].write_text(json.dumps(summary(rows, environment), indent=1) + "\n")
    write_csv(rows, paths[1])
    figure = draw_curves(rows)
    for path in paths[2:4]:
        figure.savefig(path, dpi=150)
    paths[4].write_text(page(rows, environment))
    return paths


def summary(rows: Sequence[dict[str, Any]], environment: dict[str, Any]) -> dict[str, Any]:
    """The published record: what made it, the largest disagreement, the curves and every rung."""
    return {
        **environment,
        "max_abs_logit_difference": max(row["max_abs_logit_difference"] for row in rows),
        "curves": curves(rows),
        "rungs": [dict(row) for row in rows],
    }


def curves(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over checkpoints of one kind, by criterion, budget, schedule and k."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_group(row), []).append(row)
    found = []
    for (parent, criterion, budget, schedule, keep), members in groups.items():
        entry: dict[str, Any] = {
            "parent": parent, "criterion": criterion, "budget": budget, "schedule": schedule, "keep": keep,
            "checkpoints": len(members),
        }  # fmt: skip
        for name in ("parent", "pruned", "finetuned"):
            values = [row[f"accuracy_{name}"] for row in members if row[f"accuracy_{name}"] is not None]
            entry[f"{name}_mean"] = float(np.mean(values)) if values else None
            entry[f"{name}_sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
        found.append(entry)
    return found


def draw_curves(rows: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy against k for every criterion, one column a kind of parent; below, after fine-tuning."""
    points = curves(rows)
    parents = list(dict.fromkeys(point["parent"] for point in points))
    stages = [name for name in ("pruned", "finetuned") if any(point[f"{name}_mean"] is not None for point in points)]
    with sns.axes_style("whitegrid"):
        figure = Figure(figsize=(4.6 * len(parents) + 1.6, 3.4 * len(stages)), layout="constrained")
        axes = figure.subplots(len(stages), len(parents), squeeze=False, sharex=True, sharey="row")
    names = list(dict.fromkeys(_label(point) for point in points))
    colors = dict(zip(names, sns.color_palette("deep", len(names)), strict=True))
    for across, parent in enumerate(parents):
        mine = [point for point in points if point["parent"] == parent]
        for down, stage in enumerate(stages):
            axis = axes[down, across]
            for number, name in enumerate(names):
                series = sorted((p for p in mine if _label(p) == name), key=lambda p: p["keep"])
                if not series:
                    continue
                style = "--" if series[0]["criterion"] in CONTROLS else "-"
                axis.errorbar(
                    [p["keep"] + 0.03 * number * max(1, p["keep"]) for p in series],  # aside, so that bars can be told
                    [100 * p[f"{stage}_mean"] for p in series],
                    yerr=[100 * (p[f"{stage}_sd"] or 0) for p in series],
                    marker="o", markersize=3, linestyle=style, color=colors[name], capsize=2,
                    label=name,
                )  # fmt: skip
            axis.axhline(100 * np.mean([p["parent_mean"] for p in mine]), color="black", linewidth=0.8)
            axis.set_xscale("symlog", base=2, linthresh=1)
            axis.set_xticks(keeps := sorted({p["keep"] for p in mine}), [f"{keep:g}" for keep in keeps])
            axis.minorticks_off()
            title = "as cut" if stage == "pruned" else "after fine-tuning"
            axis.set_title(f"{parent} parent, {title}", fontsize=10)
            axis.set(xlabel="offsets kept a head (k)" if stage == stages[-1] else "")
        axes[0, 0].set_ylabel("test accuracy (%)")
        axes[-1, 0].set_ylabel("test accuracy (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    return figure


def page(rows: Sequence[dict[str, Any]], environment: dict[str, Any]) -> str:
    """One self-contained page: the line that made it, the curves, and a table of every rung."""
    figure = go.Figure()
    for point in (points := curves(rows)):
        point["label"] = f"{point['parent']}: {_label(point)}"
    for name in dict.fromkeys(point["label"] for point in points):
        series = sorted((p for p in points if p["label"] == name), key=lambda p: p["keep"])
        stage = "finetuned" if series[0]["finetuned_mean"] is not None else "pruned"
        figure.add_trace(
            go.Scatter(x=[p["keep"] for p in series], y=[100 * p[f"{stage}_mean"] for p in series], name=name)
        )
    figure.update_layout(
        xaxis_title="offsets kept a head (k)", yaxis_title="test accuracy (%)", template="simple_white"
    )
    columns = [
        "checkpoint", "criterion", "budget", "schedule", "keep", "accuracy_parent", "accuracy_pruned",
        "accuracy_finetuned", "max_abs_logit_difference", "parameters", "bytes", "operations", "form",
    ]  # fmt: skip
    head = "".join(f"<th>{name.replace('_', ' ')}</th>" for name in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(row[name])}</td>" for name in columns) + "</tr>" for row in rows)
    record = html.escape(json.dumps(environment, indent=1))
    style = "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}td,th{padding:2px 8px;text-align:left}"
    return (
        f"<!doctype html><meta charset=utf-8><title>The ladder</title><style>{style}</style><h1>The ladder</h1>"
        f"<p><code>{html.escape(environment['command'])}</code></p>{figure.to_html(full_html=False)}"
        f"<table><tr>{head}</tr>{body}</table><pre>{record}</pre>\n"
    )


def _group(row: dict[str, Any]) -> tuple[Any, ...]:
    """Rows that differ in their checkpoint's seed alone."""
    return row["parent"], row["criterion"], row["budget"], row["schedule"], row["keep"]


def _label(point: dict[str, Any]) -> str:
    """A curve's name: the criterion, and the budget and schedule where they are not the usual ones."""
    parts = [point["criterion"]]
    if point["budget"] != "head":
        parts.append(f"{point['budget']} budget")
    if point["schedule"] != "one-shot":
        parts.append(point["schedule"])
    return ", ".join(parts)


def _cell(value: Any) -> str:
    """A value as text."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))
