"""The paper's claims and what they rest on, in small: `aft-lens study train`, and what follows from the runs."""

from importlib import import_module
from pathlib import Path
from typing import Literal

from analyses.cells import Crew
from analyses.provenance import RESULTS
from analyses.study.plan import Study

JOBS = {
    "train": "train",
    "tuning": "tuning",
    "judge": "judge",
    "claims-table": "result",
    "rivals": "rivals",
    "speed": "speed",
}
"""Module whose `run` does each job."""


def command(
    what: Literal["train", "tuning", "judge", "claims-table", "rivals", "speed"],
    *,
    study: Study | None = None,
    workers: int | None = None,
    ray: str = "",
    gpus: float = 0.0,
    budget: float = 0.0,
    out: Path | None = None,
) -> None:
    """Train a study's plan, or write what follows from its runs.

    Args:
        what: "train" trains what is not trained yet of `study.plan`. The others read the runs: "tuning" chooses
            learning rates and writes tuning.json; "judge" judges the claims of a plan on every family and writes
            claims.json (plan claims), controls.json (sparsity) or long_runs.json (long); "claims-table" prints
            those three as Markdown; "rivals" writes sparse_rivals.json. "speed" trains alone for a moment and writes
            training_speed.json.
        study: What is trained; "claims-table" reads what was.
        workers: Runs trained at a time, each in a process of its own, spread over all GPUs; 0 trains in this one.
            One if left out, or with --ray one for each processor of the cluster.
        ray: Address of a Ray cluster whose machines share the runs: auto, local or HOST:PORT (needs the ray extra).
        gpus: GPUs of each of its workers, e.g. 0.5 for two runs on one.
        budget: Seconds after which training stops, to go on with the same command later; 0 is no limit.
        out: Folder of the JSON; if left out results/ below the folder one stands in, in a checkout analyses/results.
    """
    module = import_module(f"analyses.study.{JOBS[what]}")
    module.run(study or Study(), crew=Crew.of(workers, ray, gpus, budget), out=out or RESULTS)
