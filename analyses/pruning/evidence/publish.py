"""The published ladder of a data set: sweeps, core timings, structure, fields, exports, one JSON and one figure.

python -m analyses.pruning.evidence.publish digits     # analyses/results/ladder_digits.json
python -m analyses.pruning.evidence.publish fashion    # analyses/results/ladder_fashion.json
"""

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jsonargparse
import torch

from aft_lens.checkpoint import revision
from aft_lens.files import write_whole
from analyses import provenance
from analyses.command import run_module
from analyses.pruning.evidence import findings
from analyses.pruning.evidence.curves import Evidence, conditions, curves
from analyses.pruning.evidence.plan import Plan
from analyses.pruning.evidence.row import RungRow
from analyses.pruning.evidence.sweep import Times, run_sweep
from analyses.pruning.measuring.operator_timing import time_core
from analyses.result import drawn, dump, plain
from analyses.store import Store, fingerprint

PLANS = Path(__file__).parents[1] / "plans"
KEEPS = (1, 4)
"""Offsets a head at which structure is asked for and models are exported."""


@dataclass(frozen=True)
class Publication:
    """What a published ladder is made of."""

    sweeps: dict[str, Plan]
    """By name; the first one's curves are drawn."""
    gumbel: dict[str, list[str]]
    """Checkpoints of single-position training by variant: the fixed temperature, schedules, straight-through."""


def read_publication(name: str, device: str = "cpu") -> Publication:
    """A shipped plan's name, or a YAML file of one, with its sweeps to run on `device`.

    Raises ValueError (and says which there are) if there is no such plan.
    """
    path = next((path for path in (PLANS / f"{name}.yaml", Path(name)) if path.is_file()), None)
    if path is None:
        shipped = ", ".join(sorted(path.stem for path in PLANS.glob("*.yaml")))
        raise ValueError(f"plan {name!r} is unknown; give a YAML file or one of: {shipped}")
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--sweeps", type=dict[str, Plan])
    parser.add_argument("--gumbel", type=dict[str, list[str]], default={})
    read = parser.instantiate(parser.parse_path(path))
    sweeps: dict[str, Plan] = read.sweeps
    return Publication({each: replace(plan, device=device) for each, plan in sweeps.items()}, read.gumbel)


def untimed(
    rows: Sequence[RungRow], variants: dict[str, list[str]], out: Path, device: str
) -> dict[str, list[dict[str, Any]]]:
    """Findings that no clock is needed for; taken from `out` where the same checkpoints left them."""
    kinds = findings.by_kind(rows)
    checkpoints = {*itertools.chain(*kinds.values()), *itertools.chain(*variants.values())}
    store, made_of = Store(out), fingerprint({path: revision(path) for path in sorted(checkpoints)})
    kept = store.get("findings", made_of)
    if kept is not None:
        return kept
    found = plain({
        "structure": findings.structure(kinds, KEEPS, out / "structure"),
        "heads": findings.dropped(kinds, calibration=512, device=device, tolerance=0.0),
        "fields": findings.fields(kinds, out / "fields"),
        "exports": findings.exports(kinds, KEEPS, out / "exports"),
        "gumbel": findings.gumbel(variants),
    })  # fmt: skip
    store.put("findings", made_of, found)
    return found


def clocked(out: Path) -> dict[str, Any]:
    """Times of the operator alone and of a whole model of the paper, on the CPU and on a GPU if there is one."""
    core = time_core()
    core.save(out / "core")
    cores = [core.record()]
    if torch.cuda.is_available():
        on_gpu = time_core(device="cuda")
        on_gpu.save(out / "core-gpu")
        cores.append(on_gpu.record())
    return {"indexed_core_speedup_cpu": core.speedup(), "core": cores, "whole_model": findings.whole_model()}


def published(rows: Sequence[RungRow]) -> list[dict[str, Any]]:
    """Rungs without their offsets, which stay in the evidence folder."""
    return [{name: value for name, value in asdict(row).items() if name not in ("offsets", "masks")} for row in rows]


def command(
    plan: str,
    out: Path | None = None,
    result: Path | None = None,
    figure: Path | None = None,
    device: str = "cpu",
    times: Times = "missing",
) -> None:
    """Run a plan's sweeps, measure what goes with them, and write the published JSON and curve; resumable.

    Args:
        plan: digits, fashion, or a YAML of sweeps by name.
        out: evidence folder; runs/ladder-PLAN if left out.
        result: JSON to write; analyses/results/ladder_PLAN.json if left out.
        figure: curve to write as PNG, with the core's times beside it; docs/ladder-PLAN.png if left out.
        device: where models are scored, fine-tuned and tested, cpu or cuda; both are timed where both are there.
        times: latencies to take: missing ones, all again, or none, which leaves timing and publishing to a later call
            on a quiet machine.
    """
    name = Path(plan).stem
    out = Path(out or f"runs/ladder-{name}")
    publication = read_publication(plan, device)
    rows: list[RungRow] = []
    for sweep, each in publication.sweeps.items():
        rows += [replace(row, sweep=sweep) for row in run_sweep(each, out / sweep, times=times)]
    found = untimed(rows, publication.gumbel, out, device)
    if times == "none":
        print(f"{len(rows)} rungs in {out}; the same line without --times none takes their times and publishes")
        return
    record: dict[str, Any] = {
        **conditions(), "data": rows[0].data, "seeds": sorted({row.parent_seed for row in rows}),
        "max_abs_logit_difference": max(row.max_abs_logit_difference for row in rows),
    }  # fmt: skip
    record |= clocked(out) | {"single_position": findings.single_against_dense(rows) or {}} | found
    record |= {"curves": curves(rows), "rungs": published(rows)}
    result = write_whole(result or provenance.RESULTS / f"ladder_{name}.json", dump(record))
    first = next(iter(publication.sweeps))
    drawing = Evidence(tuple(row for row in rows if row.sweep == first), {}).figure()
    figure = write_whole(figure or f"docs/ladder-{name}.png", drawn(drawing, "png", dpi=110))
    shutil.copyfile(out / "core" / "core.png", figure.with_stem(f"{figure.stem}-core"))
    print(
        f"{len(rows)} rungs, max |Δlogit| {record['max_abs_logit_difference']:.2e}, one offset's core "
        f"{record['indexed_core_speedup_cpu']:.1f}x faster than the dense one on the CPU\n{result}\n{figure}"
    )


if __name__ == "__main__":
    run_module("analyses.pruning.evidence.publish", command)
