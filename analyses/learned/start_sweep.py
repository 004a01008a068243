"""Where w' of Eq. 8 should start: scales of the start by learning rates of the biases, alike for every configuration.

python -m analyses.learned.start_sweep --root data --out runs/start-sweep
"""

import itertools
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch

from aft_lens.checkpoint import load_checkpoint, read_first, read_metrics
from aft_lens.data import ResidentBatches, load_data
from aft_lens.files import write_whole
from aft_lens.models import position_biases
from aft_lens.training import evaluate, read_recipe, train
from aft_lens.training.run import remove_run, state_folder
from analyses.cells import Cell, Crew, run_cells
from analyses.command import run_module
from analyses.knockout.edits import edited, no_biases
from analyses.learned.measure import learned, nearness
from analyses.provenance import RESULTS, made_by
from analyses.result import dump
from analyses.store import Store, fingerprint

STARTS = (1.0, 0.1, 0.05, 0.01)
"""Standard deviations of w' before any step."""
SCALES = (1.0, 3.0, 10.0)
"""Learning rate of the biases over that of the other weights."""
CONFIGURATIONS = {
    "dense": (),
    "entropy": ("sparsity.entropy_weight=0.001",),
    "single": ("model.position_bias=single",),
}
"""By name, what is changed in the dense recipe."""
DATA = {
    "cifar10": (
        "model.name=aft_conv_cifar", "model.depth=6", "data.name=cifar10", "data.cutmix=1.0", "data.batch_size=500",
        "optim.lr=0.002",
    ),
    "fashion-mnist": (
        "model.name=aft_conv_fashion", "data.name=fashion-mnist", "data.batch_size=500", "optim.lr=0.002",
    ),
}  # fmt: skip
"""By data set: a patch stem, so that nothing else mixes neighbours."""
LIFE = 3
"""Runs that a process makes: what CUDA graphs hold on the device goes with their process alone."""
METHOD = (
    "Every cell is one run of the same recipe (flip-crop, batch 500, lr 0.002, cosine, warm-up of a tenth) with "
    "nothing changed but the start of w', the learning rate of position biases and the configuration. val_accuracy: "
    "held-out tenth of the training images; start_correlation: mean |Pearson| over heads of w' and its start; stayed: "
    "share of heads whose strongest offset is the start's, beside chance; nearness: Spearman of w with minus the "
    "distance, mean of the heads by layer; without: accuracy on the same images with w = 0 everywhere."
)


@dataclass(frozen=True)
class Start:
    """One run of the sweep."""

    data: str
    configuration: str
    start: float
    scale: float
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.data}-{self.configuration}-{self.start:g}-x{self.scale:g}-s{self.seed}"

    def changes(self, root: str, accelerator: str) -> tuple[str, ...]:
        """Of the recipe digits-conv, whose trainer runs anywhere."""
        gpu = accelerator == "gpu"
        return (
            *DATA[self.data], *CONFIGURATIONS[self.configuration], f"model.bias_start={self.start}",
            f"optim.bias_lr_scale={self.scale}", f"optim.warmup_epochs={self.epochs / 10}", f"seed={self.seed}",
            f"data.root={root}", "data.augment=flip-crop", "data.resident=true", f"trainer.epochs={self.epochs}",
            f"trainer.accelerator={accelerator}", f"trainer.precision={'bf16-mixed' if gpu else '32-true'}",
            f"trainer.cuda_graphs={'true' if gpu else 'false'}",
        )  # fmt: skip


@dataclass(frozen=True)
class Row(Start):
    """What came of a run; see `METHOD`."""

    val_accuracy: float
    """Percent."""
    without: float
    """Percent."""
    start_correlation: float
    stayed: float
    chance: float
    nearness: tuple[float, ...]
    largest: float
    """Largest w, nats."""
    images_per_second: float


def run(start: Start, root: str, out: Path, accelerator: str) -> Row:
    """Train with a start from the beginning, and measure."""
    torch.set_num_threads(1)
    path = out / start.name
    remove_run(path)
    train(read_recipe("digits-conv", *start.changes(root, accelerator)), path, progress=False)
    loaded = load_checkpoint(path)
    found = learned(loaded.model, read_first(path))
    assert found is not None
    biases = position_biases(loaded.model)
    near = np.nanmean(nearness(biases), 1)
    rows = read_metrics(path)
    device = "cuda" if accelerator == "gpu" else "cpu"
    data = load_data(start.data, root=root, img_size=loaded.config.img_size)
    batches = ResidentBatches(data, "val", 500, device=device)
    with edited(loaded.model, no_biases(loaded.model)):
        without = evaluate(loaded.model, batches, data.classes, device=device).accuracy
    shutil.rmtree(state_folder(path))
    return Row(
        **asdict(start), val_accuracy=100 * rows[-1]["val_accuracy"], without=100 * without,
        start_correlation=found.start_correlation, stayed=found.stayed, chance=found.chance,
        nearness=tuple(near.tolist()), largest=max(float(w.detach().max()) for w in biases),
        images_per_second=fmean(row["images_per_second"] for row in rows[1:] or rows),
    )  # fmt: skip


def command(
    root: str = "data",
    out: Path = Path("runs/start-sweep"),
    epochs: int = 8,
    seeds: int = 1,
    dense_seeds: int = 2,
    workers: int = 5,
    ray: str = "",
    gpus: float = 0.0,
    budget: float = 0.0,
    accelerator: str = "gpu",
    only: tuple[str, ...] = ("cifar10", "fashion-mnist"),
    result: Path = RESULTS / "start_sweep.json",
) -> None:
    """Train every run that is missing in `out`, and write the sweep; run again to go on after a kill.

    Args:
        root: Folder of the data sets.
        out: Folder of the runs.
        epochs: Of each run.
        seeds: Seeds of entropy-regularized and single-position runs.
        dense_seeds: Seeds of dense ones.
        workers: Processes, or with --ray actors.
        ray: Address of a Ray cluster whose machines share the work: auto, local or HOST:PORT (needs the ray extra).
        gpus: GPUs of each of its workers, e.g. 0.5 for two on one.
        budget: Seconds after which training stops, to go on with the same command later; 0 is no limit.
        accelerator: gpu or cpu.
        only: Data sets.
        result: JSON to write.
    """
    starts = [
        Start(data, name, start, scale, seed, epochs)
        for seed in range(max(seeds, dense_seeds))
        for data, name, start, scale in itertools.product(only, CONFIGURATIONS, STARTS, SCALES)
        if seed < (dense_seeds if name == "dense" else seeds)
    ]
    todo = [Cell(start.name, *_work(start, root, out, accelerator)) for start in starts]
    rows: dict[str, Any] = {}
    for data in only:
        load_data(data, root=root)  # decoded once, before the processes start

    def done(cell: Cell, row: Any) -> None:
        rows[cell.name] = row
        print(
            f"{cell.name:34} {row['val_accuracy']:.2f} % (w = 0 {row['without']:.2f}), "
            f"start {row['start_correlation']:.2f}, stayed {row['stayed']:.2f}, "
            f"{row['images_per_second']:,.0f} images/s", flush=True,
        )  # fmt: skip

    crew = Crew(workers, ray, gpus, budget, LIFE)
    found = run_cells(todo, Store(out / "rows"), crew, done=done)
    record = {
        **made_by("cuda" if accelerator == "gpu" else "cpu"), "workers": workers, "planned": len(todo),
        "method": METHOD, "rows": [found.rows[cell.name] for cell in todo if cell.name in found.rows],
    }  # fmt: skip
    write_whole(result, dump(record))
    found.check()
    print(f"{len(found.rows)} of {len(todo)} cells in {result}")


def _work(start: Start, root: str, out: Path, accelerator: str) -> tuple[str, Callable[[], Row]]:
    """The fingerprint of a run, and the run."""
    return fingerprint(start, start.changes(root, accelerator)), partial(run, start, root, out, accelerator)


if __name__ == "__main__":
    run_module("analyses.learned.start_sweep", command)
