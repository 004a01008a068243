"""`aft-lens bench sweep`: replaced heads of a ViT, one process against four local Ray workers on two cores' worth."""

import json
import os
import resource
import tempfile
import time
from dataclasses import asdict
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import ray

from analyses.ablate.opened import Setup, measured, opened
from analyses.ablate.rung import Rung
from analyses.ablate.runner import Model
from analyses.bench.sweep.result import SweepBench, Way
from analyses.cells import Cell, Crew, run_cells
from analyses.provenance import RESULTS, made_by
from analyses.store import Store

WORKERS, CORES = 4, 2
SOURCE, DATA, IMAGES, CALIBRATION = "timm:vit_tiny_patch16_224", "digits", 32, 8
RUNGS = ("offsets:1", "offsets:4", "map", "uniform", "mean", "zero")
HEADS = tuple(product(range(12), range(3)))
METHOD = (
    f"{len(HEADS) * len(RUNGS)} cells: each of a ViT-Ti's {len(HEADS)} heads (random weights, 224 pixels) replaced by "
    f"each of {', '.join(RUNGS)}, measured on {IMAGES} images in float32 on one thread. One process does all; then "
    f"{WORKERS} Ray workers of one local node share them, bound to {CORES} cores by how they share the machine. "
    "seconds: wall time of the whole call, the start of processes, imports and every worker's own opening of model and "
    "images included. cpu: processor time of all workers from their start, and of the driver; without Ray's own "
    "daemons. It does not depend on what else the machine does, as wall time does. load: of the machine over a minute, "
    "as each way begins. The rows of both ways are compared to the last bit."
)


def command(out: Path | None, quick: bool) -> None:
    """Measure both ways one after another, print and save sweep.json."""
    images = 4 if quick else IMAGES
    setup = Setup(SOURCE, DATA, images, min(images, CALIBRATION), 0, "model", pretrained=False)
    heads = HEADS[:: 12 if quick else 1]
    models = [Model.of({head: Rung.read(rung)}) for head in heads for rung in RUNGS]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        opened(setup, place / "opened")  # calibrated once, as `ablate` does before it sends anything out
        one, rows = _way(models, setup, place, "one process", Crew(1))
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - its own name; Ray makes workers nice
        ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False)
        try:
            shared, others = _way(models, setup, place, f"{WORKERS} Ray workers", Crew(WORKERS, "local"))
        finally:
            ray.shutdown()
    result = SweepBench(
        (one, shared), CORES, _equal(rows, others), sorted(row["seconds"] for row in rows.values()), images,
        made_by() | {"method": METHOD},
    )  # fmt: skip
    print(result)
    print(f"wrote {result.write_record((out or RESULTS) / 'sweep.json')}")


def timed(model: Model, *, setup: Setup, folder: Path) -> dict[str, Any]:
    """A cell's row, its processor time and that of its process so far."""
    opened(setup, folder).bench(model.choosing)
    begun = time.process_time()
    row = measured(model, setup=setup, folder=folder)
    ended = time.process_time()
    return {"row": asdict(row), "seconds": ended - begun, "process": os.getpid(), "total": ended}


def _way(models: list[Model], setup: Setup, place: Path, name: str, crew: Crew) -> tuple[Way, dict[str, Any]]:
    """All cells by one crew: what it took, and the rows."""
    work = partial(timed, setup=setup, folder=place / "opened")
    cells = [Cell(model.name, "mark", partial(work, model)) for model in models]
    load, begun = os.getloadavg()[0], time.monotonic()
    driver = _driver()
    found = run_cells(cells, Store(place / name), crew, words=name)
    found.check()
    spent: dict[int, float] = {}
    for row in found.rows.values():
        spent[row["process"]] = max(row["total"], spent.get(row["process"], 0.0))
    way = Way(
        name, len(spent), time.monotonic() - begun, sum(spent.values()) + _driver() - driver, load,
        median(row["seconds"] for row in found.rows.values()),
    )  # fmt: skip
    return way, found.rows


def _driver() -> float:
    """Processor time of this process, seconds."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _equal(rows: dict[str, Any], others: dict[str, Any]) -> int:
    """Rows that both ways have alike, to the last bit."""
    return sum(json.dumps(row["row"]) == json.dumps(others[name]["row"]) for name, row in rows.items())
