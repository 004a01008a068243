"""Training over the GPUs of one machine by `aft-lens train`: speed, accuracy and going on with fewer of them."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from aft_lens.checkpoint import METRICS, load_checkpoint, read_metrics
from aft_lens.data import ResidentBatches, load_data
from aft_lens.training import evaluate
from aft_lens.training.run import state_folder
from analyses.machine import RESULTS, environment, visible_gpu

NAME = "multi_gpu.json"
COUNTS = (1, 2, 4, 8)
SEEDS, EPOCHS, GLOBAL_BATCH = 3, 6, 512
ACCELERATOR, DEVICE = "gpu", "cuda"
"""Where training and the tests of accuracy run."""
RUNS = Path("runs/multi_gpu")
"""Folder of the runs; finished ones in it are not trained again."""
SPEED = (
    "--model.mixer=aft_conv", "--model.embed_dim=384", "--model.num_heads=32", "--data.name=synthetic",
    "--data.batch_size=256", f"--trainer.epochs={EPOCHS}", "--trainer.compile=true",
)  # fmt: skip
"""The small AFT-conv 11/32 at 224 pixels, 256 images a GPU."""
ACCURACY = ("--recipe=fashion-conv", f"--trainer.epochs={EPOCHS}", "--optim.warmup_epochs=1")
METHOD = (
    "Every run is `aft-lens train` with DDP, bfloat16 autocast and the data on the devices. Speed: images/s of all "
    "GPUs, median over the epochs but the first two, 256 images a GPU. Accuracy: Fashion-MNIST's test images after "
    f"{EPOCHS} epochs of fashion-conv at a global batch of {GLOBAL_BATCH}, {SEEDS} seeds. Resumed: a run on the most "
    "GPUs ended by SIGTERM after two epochs goes on with one. A run on several GPUs has them to itself."
)

Started = tuple["subprocess.Popen[bytes]", Path]
"""A run and its log."""


def command(out: Path | None = None, *, quick: bool = False) -> None:
    """Train on 1, 2, 4 and 8 GPUs as far as there are; print and save. Raises ValueError without two of them.

    Cut short, it goes on with the runs that are missing in `RUNS`.
    """
    counts = [count for count in COUNTS if count <= torch.cuda.device_count()]
    if len(counts) < 2:
        raise ValueError(f"bench multi_gpu needs two CUDA devices or more, found {torch.cuda.device_count()}")
    runs = RUNS.with_name(f"{RUNS.name}-quick") if quick else RUNS
    limit = ("--trainer.limit_batches=3",) if quick else ()
    runs.mkdir(parents=True, exist_ok=True)
    folder = out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "command": "aft-lens bench multi_gpu" + (" --quick true" if quick else ""),
        **environment(DEVICE),
        "seeds": list(range(SEEDS)),
        "method": METHOD,
        "rows": [],
    }
    for count in counts:
        row: dict[str, Any] = {"gpus": count, **speed(runs, count, limit)}
        record["rows"].append(row)
        row["scaling_efficiency"] = row["images_per_second"] / (count * record["rows"][0]["images_per_second"])
        _write(record, folder)
        print(f"{count} GPUs: {row['images_per_second']:,.0f} images/s", flush=True)
    for row in record["rows"][1:]:
        for seed in range(SEEDS):
            _wait(_start_accuracy(runs, row["gpus"], seed, limit))
        _add_accuracies(row, runs)
        _write(record, folder)
    before = broken(runs, counts[-1], limit)
    started = [_start_accuracy(runs, 1, seed, limit) for seed in range(SEEDS)]
    resumed = _start(runs, "broken", 1, (*_accuracy_options(0, 1), *limit, "--resume=true"), gpu=SEEDS)
    for one in (*started, resumed):
        _wait(one)
    _add_accuracies(record["rows"][0], runs)
    record["resumed"] = {
        "gpus_before": counts[-1],
        "gpus_after": 1,
        "epochs_before": before,
        "epochs": len(read_metrics(runs / "broken")),
        "test_accuracy": _accuracy(runs / "broken"),
    }
    _write(record, folder)
    print(f"resumed: {record['resumed']}\nwrote {folder / NAME}")


def _write(record: dict[str, Any], folder: Path) -> None:
    """Write what is measured so far."""
    (folder / NAME).write_text(json.dumps(record, indent=1) + "\n")


def speed(runs: Path, count: int, limit: tuple[str, ...]) -> dict[str, float]:
    """Images a second and the largest peak memory of a GPU."""
    name = f"speed-{count}"
    _wait(_unfinished(runs, name, count, (*SPEED, *limit)))
    rows = read_metrics(runs / name)
    return {
        "images_per_second": statistics.median(row["images_per_second"] for row in rows[2:]),
        "peak_memory_mib": max(row["peak_memory_mib"] for row in rows),
    }


def broken(runs: Path, count: int, limit: tuple[str, ...]) -> int:
    """Train on `count` GPUs, end that after two epochs or a few more, and return how many."""
    path = runs / "broken"
    _remove(path)
    process, log = _start(runs, "broken", count, (*_accuracy_options(0, count), *limit))
    while not (path / METRICS).is_file() or len(read_metrics(path)) < 2:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended before it was stopped:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    return len(read_metrics(path))


def _accuracy_options(seed: int, count: int) -> tuple[str, ...]:
    return (*ACCURACY, f"--seed={seed}", f"--data.batch_size={GLOBAL_BATCH // count}")


def _start_accuracy(runs: Path, count: int, seed: int, limit: tuple[str, ...]) -> Started | None:
    """Start a seed on that many GPUs; those on one GPU are dealt out to all."""
    return _unfinished(runs, f"accuracy-{count}-{seed}", count, (*_accuracy_options(seed, count), *limit), gpu=seed)


def _unfinished(runs: Path, name: str, count: int, options: tuple[str, ...], gpu: int = 0) -> Started | None:
    """Start a run, or None if it has finished before."""
    path = runs / name
    if (path / METRICS).is_file() and len(read_metrics(path)) == EPOCHS:
        print(f"{path} finished before; remove {runs} to measure anew", flush=True)
        return None
    _remove(path)
    return _start(runs, name, count, options, gpu)


def _remove(path: Path) -> None:
    """Remove a run and what it would resume from."""
    for folder in (path, state_folder(path)):
        shutil.rmtree(folder, ignore_errors=True)


def _start(runs: Path, name: str, count: int, options: tuple[str, ...], gpu: int = 0) -> Started:
    """Start `aft-lens train` on that many GPUs (a single one: that of the number), in a process group of its own."""
    command = [
        sys.executable, "-m", "app.cli", "train", *options, f"--name={name}", f"--out={runs}", "--data.resident=true",
        f"--trainer.accelerator={ACCELERATOR}", f"--trainer.devices={count}", "--trainer.precision=bf16-mixed",
        f"--trainer.strategy={'ddp' if count > 1 else 'auto'}",
    ]  # fmt: skip
    alone = {"CUDA_VISIBLE_DEVICES": str(visible_gpu(gpu))} if count == 1 else {}
    log = runs / f"{name}.log"
    with log.open("ab") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **alone}
        )
    return process, log


def _wait(started: Started | None) -> None:
    """Wait for a run, if any; RuntimeError with the end of its log if it failed."""
    if started is None:
        return
    process, log = started
    if process.wait():
        raise RuntimeError(f"{' '.join(map(str, process.args))} failed:\n{log.read_text()[-3000:]}")  # type: ignore[arg-type]


def _add_accuracies(row: dict[str, Any], runs: Path) -> None:
    """Put the seeds' test accuracies into a row, and print it."""
    row["test_accuracy"] = [_accuracy(runs / f"accuracy-{row['gpus']}-{seed}") for seed in range(SEEDS)]
    print(_line(row), flush=True)


def _accuracy(path: Path) -> float:
    """Test accuracy of a checkpoint, percent."""
    saved = load_checkpoint(path, DEVICE)
    data = load_data(saved.data["name"])
    batches = ResidentBatches(data, "test", 250, device=DEVICE)
    return 100 * evaluate(saved.model, batches, data.classes, device=DEVICE).accuracy


def _line(row: dict[str, Any]) -> str:
    scores = row["test_accuracy"]
    return (
        f"{row['gpus']} GPUs  {row['images_per_second']:8,.0f} images/s  efficiency {row['scaling_efficiency']:.2f}  "
        f"{row['peak_memory_mib']:,.0f} MiB a GPU  test accuracy {statistics.fmean(scores):.2f} "
        f"± {statistics.stdev(scores):.2f} %"
    )
