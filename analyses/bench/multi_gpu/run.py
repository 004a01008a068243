"""Training over the GPUs of one machine by `aft-lens train`: speed, accuracy and going on with fewer of them."""

import statistics
from dataclasses import replace
from pathlib import Path

import torch

from aft_lens.checkpoint import load_checkpoint, read_metrics
from aft_lens.data import load_data
from aft_lens.statistics import pooled_deviation, unpaired_interval
from analyses.bench.multi_gpu.record import NAME, GPUCount, Resumed
from analyses.bench.multi_gpu.result import MultiGPUBench
from analyses.bench.multi_gpu.trainings import Training, Trainings
from analyses.provenance import RESULTS, made_by
from analyses.study.measure import accuracy as test_accuracy
from analyses.study.tables import mean_and_deviation

COUNTS = (1, 2, 4, 8)
SEEDS, EPOCHS, STOPPED, GLOBAL_BATCH = 4, 8, 2, 512
RUNS = Path("runs/multi_gpu")
"""Folder of the runs; finished ones in it are not trained again."""
COMMON = (
    f"--trainer.epochs={EPOCHS}",
    "--trainer.precision=bf16-mixed",
    "--trainer.cuda_graphs=true",
    "--data.resident=true",
)
BATCH, STEPS = 256, 32
SPEED = (
    "--model.mixer=aft_conv", "--model.embed_dim=384", "--model.num_heads=32", f"--data.batch_size={BATCH}",
    "--trainer.compile=true", *COMMON,
)  # fmt: skip
"""The small AFT-conv 11/32 at 224 pixels."""
ACCURACY = ("--recipe=fashion-conv", "--optim.warmup_epochs=1", *COMMON)
METHOD = (
    "Every run is `aft-lens train` with bfloat16 autocast, passes replayed as CUDA graphs, the data on every device "
    f"and, on several GPUs, DDP. Speed: images/s of all GPUs, median over the epochs of at most {STEPS} steps but the "
    f"first two, {BATCH} images a GPU and step, with nothing beside it; peak memory has {STEPS * BATCH} images for "
    f"each GPU there is. Accuracy: Fashion-MNIST's test images after {EPOCHS} epochs of fashion-conv at a global batch "
    f"of {GLOBAL_BATCH}, {SEEDS} seeds, side by side where GPUs are free; intervals by Student's t with a row's own or "
    "the pooled deviation, whichever is larger. Resumed: a run on the most GPUs, ended by SIGTERM after "
    f"{STOPPED} epochs, goes on with one."
)


def command(out: Path | None = None, *, quick: bool = False) -> None:
    """Train on 1, 2, 4 and 8 GPUs as far as there are; print and save. Raises ValueError without two of them.

    Cut short, it goes on with the runs that are missing in `RUNS`.
    """
    counts = [count for count in COUNTS if count <= torch.cuda.device_count()]
    if len(counts) < 2:
        raise ValueError(f"bench multi_gpu needs two CUDA devices or more, found {torch.cuda.device_count()}")
    limit = ("--trainer.limit_batches=30",) if quick else ()
    path = (out or RESULTS) / NAME
    result = MultiGPUBench(**made_by("cuda"), seeds=list(range(SEEDS)), method=METHOD)
    trainings = Trainings(RUNS.with_name(f"{RUNS.name}-quick") if quick else RUNS)
    for count in counts:
        row = speed(trainings, count, limit, result.rows[0] if result.rows else None)
        result = _write(replace(result, rows=[*result.rows, row]), path)
        print(f"{count} GPUs: {row.images_per_second:,.0f} images/s", flush=True)
    result = _write(replace(result, resumed=resumed(trainings, counts[-1], limit)), path)
    print(f"resumed: {result.resumed}", flush=True)
    for number, row in enumerate(result.rows):
        runs = [
            Training(f"accuracy-{row.gpus}-{seed}", row.gpus, accuracy(row.gpus, seed, limit)) for seed in range(SEEDS)
        ]
        trainings.run(*runs, beside=counts[-1] // row.gpus)
        row = replace(row, test_accuracy=tuple(_accuracy(trainings.folder / each.name) for each in runs))
        print(_line(row), flush=True)
        rows = [*result.rows[:number], row, *result.rows[number + 1 :]]
        result = _write(replace(result, rows=with_differences(rows)), path)
    print(f"wrote {path}")


def _write(result: MultiGPUBench, path: Path) -> MultiGPUBench:
    """Write what is measured so far, and give it back."""
    result.write_record(path)
    return result


def speed(trainings: Trainings, count: int, limit: tuple[str, ...], single: GPUCount | None) -> GPUCount:
    """Images a second and the largest peak memory of a GPU; efficiency is over `single`, the row of one GPU."""
    name = f"speed-{count}"
    images = f"--data.name=synthetic:{STEPS * BATCH * count}"
    trainings.run(Training(name, count, (*SPEED, images, *limit)))
    rows = read_metrics(trainings.folder / name)
    rate = statistics.median(row["images_per_second"] for row in rows[2:])
    efficiency = 1.0 if single is None else rate / (count * single.images_per_second)
    return GPUCount(count, rate, max(row["peak_memory_mib"] for row in rows), efficiency)


def resumed(trainings: Trainings, count: int, limit: tuple[str, ...]) -> Resumed:
    """What becomes of a run that is stopped on `count` GPUs and goes on with one."""
    before, after = (Training("broken", gpus, accuracy(gpus, 0, limit)) for gpus in (count, 1))
    found = trainings.broken_off(before, STOPPED, after)
    return Resumed(count, 1, found["before"], found["epochs"], _accuracy(trainings.folder / "broken"))


def accuracy(count: int, seed: int, limit: tuple[str, ...]) -> tuple[str, ...]:
    """Options of a seed's run on that many GPUs."""
    return (*ACCURACY, f"--seed={seed}", f"--data.batch_size={GLOBAL_BATCH // count}", *limit)


def with_differences(rows: list[GPUCount]) -> list[GPUCount]:
    """Rows with the difference to one GPU's accuracy in each that has an accuracy, but the first."""
    measured = [row for row in rows if row.test_accuracy]
    pooled = pooled_deviation([row.test_accuracy for row in measured])
    return [
        replace(row, difference=unpaired_interval(row.test_accuracy, rows[0].test_accuracy, pooled))
        if row.test_accuracy and row is not rows[0]
        else row
        for row in rows
    ]


def _accuracy(path: Path) -> float:
    """Test accuracy of a checkpoint, percent."""
    saved = load_checkpoint(path, "cuda")
    return test_accuracy(saved.model, load_data(saved.data["name"]), torch.device("cuda"))


def _line(row: GPUCount) -> str:
    return (
        f"{row.gpus} GPUs  {row.images_per_second:8,.0f} images/s  efficiency {row.scaling_efficiency:.2f}  "
        f"{row.peak_memory_mib:,.0f} MiB a GPU  test accuracy {mean_and_deviation(row.test_accuracy)} %"
    )
