"""What the page shows of records of trained ViTs."""

import numpy as np

from analyses.ablate.rung import Rung
from analyses.bench.sweep.result import QUIET, million
from analyses.published.contents import Record, table


def compact(record: Record) -> str:
    """A row a form: what it weighs, how it agrees, how long it takes."""
    conditions = [_condition(time) for time in record["forms"][0]["times"]]
    kept = all(time["latency"].get("cpu_ms") for form in record["forms"] for time in form["times"])
    busy = kept and record["load"] > QUIET  # wall times then say nothing of the models
    rows = []
    for form in record["forms"]:
        own = form["name"] in ("original", "intact")
        tuned = f", {form['tuned']}" if form.get("tuned") else ""
        times = [time["latency"] for time in form["times"]]
        rows.append(
            [
                form["name"] if own else Rung.read(form["name"]).words + tuned, f"{form['bytes'] / 1e6:.1f}",
                f"{form['operations'] / 1e9:.2f}", "–" if own else f"{form['parity']:.1e}",
                "–" if own else f"{form['cosine']:.3f}",
                *(f"{one['median_ms']:.1f} [{one['low_ms']:.1f}, {one['high_ms']:.1f}]" for one in times if not busy),
                *(f"{one['cpu_ms']:.1f}" for one in times if kept),
            ]
        )  # fmt: skip
    said = (
        f"{record['model']} at {record['pixels']} pixels ({record['tokens']} tokens), {len(record['replaced'])} of "
        f"{record['heads']} heads replaced, {record['threads']} thread(s)"
        f"{', load {:.1f}'.format(record['load']) if kept else ''}."
    )
    columns = [
        "Model",
        "MB",
        "GFLOP",
        "Parity",
        "Cosine to intact",
        *(f"ms, {one} [quartiles]" for one in conditions if not busy),
    ]
    columns += [f"Least processor ms, {one}" for one in conditions] if kept else []
    return f"{said}\n\n{table(columns, rows)}"


def _condition(time: Record) -> str:
    graph = ", CUDA graph" if time["graph"] else ""
    return f"batch {time['latency']['batch']}, {time['precision']}{graph}"


def qk(record: Record) -> str:
    """A row a layer: means over heads."""
    groups = {name: np.array(values, float) for name, values in record["groups"].items()}
    groups |= {
        name.replace("_", " "): np.array(record[name], float)
        for name in ("offsets_in_position", "offsets_in_attention")
    }
    depth = len(next(iter(groups.values())))
    rows = [[str(i), *(f"{np.nanmean(values[i]):.2f}" for values in groups.values())] for i in range(depth)]
    rows.append(["all", *(f"{np.nanmean(values):.2f}" for values in groups.values())])
    said = f"{record['model']} over {record['images']} photographs: shares of the variance of the logits over sources."
    return f"{said}\n\n{table(['Layer', *(name.capitalize() for name in groups)], rows, 0)}"


def sweep(record: Record) -> str:
    """Both ways, what sharing costs, and what a million cells would."""
    rows = [
        [way["name"], str(way["processes"]), f"{way['seconds']:.0f}", f"{way['cpu']:.0f}", f"{way['load']:.1f}"]
        for way in record["ways"]
    ]
    ways = table(["Way", "Processes that did cells", "Wall time, s", "Processor time, s", "Load before"], rows)
    wall = "" if record["quiet"] else " The machine was busy with other work, so wall times say nothing."
    said = (
        f"{record['equal']} of {record['cells']} rows are alike to the last bit. Processor time on Ray is "
        f"{record['work_ratio']:.3f} times that of one process, wall time {record['wall_ratio']:.2f} times that of one "
        f"process shared by {record['cores']} cores.{wall}"
    )
    cost = million(record)
    return f"{ways}\n\n{said}\n\n{cost.title}; computed, not run:\n\n{table(cost.columns, cost.rows, 0)}"
