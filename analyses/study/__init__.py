"""The paper's claims in small: `aft-lens study paper-claims`, `claims-table` and `speed`."""

from importlib import import_module
from pathlib import Path
from typing import Literal

from analyses.provenance import RESULTS
from analyses.study.plan import Study

JOBS = {"paper-claims": "train", "claims-table": "result", "speed": "speed"}
"""Module whose `run` does each job."""


def command(
    what: Literal["paper-claims", "claims-table", "speed"],
    *,
    study: Study | None = None,
    workers: int = 1,
    budget: float = 0.0,
    out: Path = RESULTS,
) -> None:
    """Train every configuration of the paper's claims, print the table of verdicts, or measure training speed.

    Args:
        what: "paper-claims" trains what is not trained yet and writes claims.json; "claims-table" prints claims.json
            as Markdown; "speed" trains alone for a moment and writes training_speed.json.
        study: What is trained; for "claims-table" this is read from claims.json.
        workers: Runs trained at a time, each in a process of its own, spread over all GPUs; 0 trains in this one.
        budget: Seconds after which training stops, to go on with the same command later; 0 is no limit.
        out: Folder of the JSON.
    """
    if workers < 0 or budget < 0:
        raise ValueError(f"workers and budget must be 0 or more, got {workers} and {budget}")
    module = import_module(f"analyses.study.{JOBS[what]}")
    module.run(study or Study(), workers=workers, budget=budget, out=out)
