"""Tables 2 to 6 in small: every mixer in one skeleton, windows, lengths and factors, on pixels and on text."""

from importlib import import_module
from pathlib import Path
from typing import Literal

from analyses.autoregression.plan import Study
from analyses.cells import Crew
from analyses.provenance import RESULTS


def command(
    what: Literal["train", "speed", "judge"],
    study: Study,
    workers: int | None = None,
    ray: str = "",
    gpus: float = 0.0,
    budget: float = 0.0,
    out: Path | None = None,
) -> None:
    """Train what is not trained yet, time the paper's sizes, or judge the paper's claims on the runs.

    Args:
        what: "train" trains the study's runs, "speed" times training steps at the paper's sizes on one GPU, "judge"
            writes autoregression.json from both.
        study: What is trained.
        workers: Runs trained at a time, each in a process of its own; 0 trains in this one. One if left out,
            or with --ray one for each processor of the cluster.
        ray: Address of a Ray cluster whose machines share the runs: auto, local or HOST:PORT (needs the ray extra).
        gpus: GPUs of each of its workers, e.g. 0.5 for two runs on one.
        budget: Seconds after which training stops, to go on with the same command later; 0 is no limit.
        out: Folder of the JSON; if left out results/ below the folder one stands in, in a checkout analyses/results.
    """
    module = import_module(f"analyses.autoregression.{what}")
    module.run(study, crew=Crew.of(workers, ray, gpus, budget), out=out or RESULTS)
