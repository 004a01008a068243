"""Training over the GPUs of one machine from image files and from memory: `aft-lens bench multi_gpu --data files`."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aft_lens.checkpoint import read_metrics
from aft_lens.data import usable_cores
from aft_lens.files import write_whole
from analyses.bench.images.files import make_files
from analyses.bench.images.run import FOLDER
from analyses.bench.multi_gpu.trainings import Training, Trainings
from analyses.provenance import RESULTS, made_by
from analyses.result import dump

NAME = "multi_gpu_files.json"
RUNS = Path("runs/multi_gpu_files")
"""Folder of the runs; finished ones in it are not trained again."""
COUNTS = (1, 2, 4, 8)
BATCH, STEPS, EPOCHS, SAVED = 256, 32, 4, 10
"""Images a GPU and step, steps an epoch, epochs, and steps after which the run that is broken off keeps its state."""
COMMON = (
    "--recipe=imagenet-conv-small", "--model.drop_path=0", "--data.repeats=1", "--data.mixup=0", "--data.cutmix=0",
    f"--data.batch_size={BATCH}", f"--trainer.epochs={EPOCHS}",
)  # fmt: skip
METHOD = (
    "Every run is `aft-lens train` by imagenet-conv-small (AFT-conv small 11/384, 224 pixels, bfloat16, compiled, CUDA "
    f"graphs, no stochastic depth), {BATCH} images a GPU and step, {STEPS} steps an epoch, DDP on several GPUs. "
    "From memory: uint8 images on every device; from files: JPEG files of 500 x 375 pixels in the page cache, random "
    "resized crop and flip, the host's cores shared. Images/s of all GPUs, median over the epochs but the first; "
    "efficiency over as many single GPUs; host cores: processor time of a run over its time, its start included. "
    f"Resumed: a run from files on the most GPUs, ended by SIGTERM, which keeps its state every {SAVED} steps, goes on "
    "with one GPU."
)


@dataclass(frozen=True)
class FilesRow:
    """Training on a number of GPUs, from memory or from files."""

    gpus: int
    data: str
    """memory or files."""
    images_per_second: float
    """Of all GPUs."""
    efficiency: float
    peak_memory_mib: float
    """Largest of a GPU."""
    host_cores: float
    """Processor time over time."""


@dataclass(frozen=True)
class FilesBench:
    """Everything measured."""

    command: str
    hardware: str
    versions: Mapping[str, str]
    method: str
    cores: int
    seed: int = 0
    rows: Sequence[FilesRow] = ()
    resumed: Mapping[str, Any] | None = None
    """GPUs before and after, the epochs that were whole when it was broken off, and in the end."""


def command(out: Path | None = None, *, quick: bool = False) -> None:
    """Train on 1, 2, 4 and 8 GPUs as far as there are; print and save. Raises ValueError without two of them."""
    counts = [count for count in COUNTS if count <= torch.cuda.device_count()]
    if len(counts) < 2:
        raise ValueError(f"bench multi_gpu needs two CUDA devices or more, found {torch.cuda.device_count()}")
    path = (out or RESULTS) / NAME
    limit = f"--trainer.limit_batches={8 if quick else STEPS}"
    files = BATCH * STEPS * counts[-1]
    folder = make_files(FOLDER.with_name(f"{FOLDER.name}-multi"), files)
    found = FilesBench(**made_by("cuda"), method=METHOD, cores=usable_cores())
    trainings = Trainings(RUNS.with_name(f"{RUNS.name}-quick") if quick else RUNS)
    for data in ("memory", "files"):
        for count in counts:
            row = measured(trainings, count, data, folder, limit)
            single = next((each for each in found.rows if each.data == data), row)
            row = replace(row, efficiency=row.images_per_second / (count * single.images_per_second))
            print(f"{data:7} {count} GPUs  {row.images_per_second:9,.0f} images/s  efficiency "
                  f"{row.efficiency:.3f}  {row.host_cores:.1f} cores", flush=True)  # fmt: skip
            found = _write(replace(found, rows=(*found.rows, row)), path)
    found = _write(replace(found, resumed=resumed(trainings, counts[-1], folder, limit)), path)
    print(f"resumed: {found.resumed}")
    print(f"wrote {path}")


def measured(trainings: Trainings, count: int, data: str, folder: Path, limit: str) -> FilesRow:
    """Images a second, memory and host cores of a run; its efficiency is not known yet."""
    name = f"{data}-{count}"
    (run,) = trainings.run(Training(name, count, (*options(data, count, folder), limit)))
    rows = read_metrics(trainings.folder / name)
    rate = statistics.median(row["images_per_second"] for row in rows[1:])
    return FilesRow(count, data, rate, 1.0, max(row["peak_memory_mib"] for row in rows), run["host_cores"])


def options(data: str, count: int, folder: Path) -> tuple[str, ...]:
    """What a run is trained on."""
    if data == "memory":
        return (
            *COMMON,
            f"--data.name=synthetic:{BATCH * STEPS * count}",
            "--data.resident=true",
            "--data.augment=none",
        )
    return (*COMMON, f"--data.name=folder:{folder}", "--data.augment=resized-crop")


def resumed(trainings: Trainings, count: int, folder: Path, limit: str) -> dict[str, Any]:
    """What becomes of a run from files that is stopped within an epoch on `count` GPUs and goes on with one."""
    own = (*options("files", count, folder), f"--trainer.save_steps={SAVED}", limit)
    after = Training("broken", 1, (*own, f"--data.batch_size={BATCH * count}"))
    found = trainings.broken_off(Training("broken", count, own), 1, after)
    return {"gpus_before": count, "gpus_after": 1, "epochs_before": found["before"], "epochs": found["epochs"]}


def _write(found: FilesBench, path: Path) -> FilesBench:
    """Write what is measured so far, and give it back."""
    write_whole(path, dump(asdict(found)))
    return found
