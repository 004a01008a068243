"""The published ladder of a data set: sweeps, core timings, structure, fields, exports, one JSON and one figure.

python -m analyses.pruning.publish digits     # analyses/results/ladder_digits.json
python -m analyses.pruning.publish fashion    # analyses/results/ladder_fashion.json
"""

import itertools
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonargparse
import torch

from aft_lens.checkpoint import commit, revision
from analyses import provenance
from analyses.pruning import evidence, findings
from analyses.pruning.core import time_core
from analyses.pruning.plan import Plan
from analyses.pruning.sweep import Times, run_sweep

PLANS = Path(__file__).parent / "plans"
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
    rows: Sequence[dict[str, Any]], variants: dict[str, list[str]], out: Path, device: str
) -> dict[str, list[dict[str, Any]]]:
    """Findings that no clock is needed for; taken from `out` where the same checkpoints left them."""
    kinds = findings.by_kind(rows)
    checkpoints = {*itertools.chain(*kinds.values()), *itertools.chain(*variants.values())}
    made_of = {path: revision(path) for path in sorted(checkpoints)}
    path = out / "findings.json"
    if path.is_file() and (kept := json.loads(path.read_text()))["made_of"] == made_of:
        return kept["findings"]
    found = {
        "structure": findings.structure(kinds, KEEPS, out / "structure"),
        "heads": findings.dropped(kinds, calibration=512, device=device, tolerance=0.0),
        "fields": findings.fields(kinds, out / "fields"),
        "exports": findings.exports(kinds, KEEPS, out / "exports"),
        "gumbel": findings.gumbel(variants),
    }
    path.write_text(json.dumps({"made_of": made_of, "findings": found}) + "\n")
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


def published(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rungs without their offsets and fingerprints, which stay in the evidence folder."""
    left_out = ("offsets", "fingerprint", "masks")
    return [{name: value for name, value in row.items() if name not in left_out} for row in rows]


def dump(record: dict[str, Any]) -> str:
    """JSON with a line for each field and for each row of a list."""
    lines = []
    for name, value in record.items():
        text = json.dumps(_rounded(value))
        if isinstance(value, list) and value and isinstance(value[0], dict):
            text = "[\n  " + ",\n  ".join(json.dumps(_rounded(row)) for row in value) + "\n ]"
        lines.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _rounded(value: Any) -> Any:
    """A value with its fractions at six significant digits."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


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
    line = shlex.join(["python", "-m", "analyses.pruning.publish", *sys.argv[1:]])
    publication = read_publication(plan, device)
    sweeps = publication.sweeps
    rows: list[dict[str, Any]] = []
    for sweep, each in sweeps.items():
        rows += [{"sweep": sweep, **row} for row in run_sweep(each, out / sweep, line=line, times=times)]
    found = untimed(rows, publication.gumbel, out, device)
    if times == "none":
        print(f"{len(rows)} rungs in {out}; the same line without --times none takes their times and publishes")
        return
    record: dict[str, Any] = {
        "command": line, **provenance.environment(), "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None, "commit": commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"), "data": rows[0]["data"],
        "seeds": sorted({row["parent_seed"] for row in rows}),
        "max_abs_logit_difference": max(row["max_abs_logit_difference"] for row in rows),
    }  # fmt: skip
    record |= clocked(out) | {"single_position": findings.single_against_dense(rows)} | found
    record |= {"curves": evidence.curves(rows), "rungs": published(rows)}
    result, figure = (
        Path(result or provenance.RESULTS / f"ladder_{name}.json"),
        Path(figure or f"docs/ladder-{name}.png"),
    )
    for path in (result, figure):
        path.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(dump(record))
    shutil.copyfile(out / "core" / "core.png", figure.with_stem(f"{figure.stem}-core"))
    first = next(iter(sweeps))
    evidence.draw_curves([row for row in rows if row["sweep"] == first]).savefig(figure, dpi=110)
    print(
        f"{len(rows)} rungs, max |Δlogit| {record['max_abs_logit_difference']:.2e}, one offset's core "
        f"{record['indexed_core_speedup_cpu']:.1f}x faster than the dense one on the CPU\n{result}\n{figure}"
    )


if __name__ == "__main__":
    jsonargparse.auto_cli(command)
