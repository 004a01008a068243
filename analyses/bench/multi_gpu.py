"""Training over the GPUs of one machine by `aft-lens train`: speed, accuracy and going on with fewer of them."""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from aft_lens.checkpoint import METRICS, load_checkpoint, read_metrics
from aft_lens.data import ResidentBatches, load_data
from aft_lens.training import evaluate
from analyses.machine import RESULTS, environment

NAME = "multi_gpu.json"
COUNTS = (1, 2, 4, 8)
SEEDS, EPOCHS, GLOBAL_BATCH = 3, 6, 512
SPEED = (
    "--model.mixer=aft_conv", "--model.embed_dim=384", "--model.num_heads=32", "--data.name=synthetic",
    "--data.batch_size=256", "--trainer.epochs=6", "--trainer.compile=true",
)  # fmt: skip
"""The small AFT-conv 11/32 at 224 pixels, 256 images a GPU."""
ACCURACY = ("--recipe=fashion-conv", f"--trainer.epochs={EPOCHS}", "--optim.warmup_epochs=1")
METHOD = (
    "Every run is `aft-lens train` with DDP, bfloat16 autocast and the data on the devices. Speed: images/s of all "
    "GPUs, median over the epochs but the first two, 256 images a GPU. Accuracy: Fashion-MNIST's test images after "
    f"{EPOCHS} epochs of fashion-conv at a global batch of {GLOBAL_BATCH}, {SEEDS} seeds. Resumed: a run on the most "
    "GPUs ended by SIGTERM after two epochs goes on with one."
)


Started = tuple["subprocess.Popen[bytes]", Path]
"""A run and its log."""


def command(out: Path | None = None, *, quick: bool = False) -> None:
    """Train on 1, 2, 4 and 8 GPUs as far as there are; print and save. Raises ValueError without two of them."""
    counts = [count for count in COUNTS if count <= torch.cuda.device_count()]
    if len(counts) < 2:
        raise ValueError(f"bench multi_gpu needs two CUDA devices or more, found {torch.cuda.device_count()}")
    limit = ("--trainer.limit_batches=3",) if quick else ()
    record: dict[str, Any] = {
        "command": "aft-lens bench multi_gpu" + (" --quick true" if quick else ""),
        **environment("cuda"),
        "seeds": list(range(SEEDS)),
        "method": METHOD,
        "rows": [],
    }
    folder = out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        runs = Path(place)
        for count in counts:
            row: dict[str, Any] = {"gpus": count, **speed(runs, count, limit)}
            record["rows"].append(row)
            row["scaling_efficiency"] = row["images_per_second"] / (count * record["rows"][0]["images_per_second"])
            _write(record, folder)
            print(f"{count} GPUs: {row['images_per_second']:,.0f} images/s", flush=True)
        started = start_accuracies(runs, counts, limit)
        record["resumed"] = resumed(runs, counts[-1], limit)
        _write(record, folder)
        for one in started:
            _wait(one)
        for row in record["rows"]:
            row["test_accuracy"] = [_accuracy(runs / f"accuracy-{row['gpus']}-{seed}") for seed in range(SEEDS)]
            print(_line(row), flush=True)
    _write(record, folder)
    print(f"resumed: {record['resumed']}\nwrote {folder / NAME}")


def _write(record: dict[str, Any], folder: Path) -> None:
    """Write what is measured so far: a run cut short loses what it was at alone."""
    (folder / NAME).write_text(json.dumps(record, indent=1) + "\n")


def speed(runs: Path, count: int, limit: tuple[str, ...]) -> dict[str, float]:
    """Images a second and the largest peak memory of a GPU."""
    _wait(_start(runs, f"speed-{count}", count, (*SPEED, *limit)))
    rows = read_metrics(runs / f"speed-{count}")
    return {
        "images_per_second": statistics.median(row["images_per_second"] for row in rows[2:]),
        "peak_memory_mib": max(row["peak_memory_mib"] for row in rows),
    }


def start_accuracies(runs: Path, counts: list[int], limit: tuple[str, ...]) -> list[Started]:
    """Start every seed on each number of GPUs, all at the same time."""
    started = []
    for count in counts:
        for seed in range(SEEDS):
            options = (*ACCURACY, f"--seed={seed}", f"--data.batch_size={GLOBAL_BATCH // count}", *limit)
            started.append(_start(runs, f"accuracy-{count}-{seed}", count, options))
    return started


def resumed(runs: Path, count: int, limit: tuple[str, ...]) -> dict[str, Any]:
    """End a run on `count` GPUs after two epochs and go on with one."""
    options = (*ACCURACY, "--seed=0", *limit)
    process, log = _start(runs, "broken", count, (*options, f"--data.batch_size={GLOBAL_BATCH // count}"))
    path = runs / "broken"
    while not (path / METRICS).is_file() or len(read_metrics(path)) < 2:
        if process.poll() is not None:
            raise RuntimeError(f"the run ended before it was stopped:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    before = len(read_metrics(path))
    _wait(_start(runs, "broken", 1, (*options, f"--data.batch_size={GLOBAL_BATCH}", "--resume=true")))
    return {
        "gpus_before": count,
        "gpus_after": 1,
        "epochs_before": before,
        "epochs": len(read_metrics(path)),
        "test_accuracy": _accuracy(path),
    }


def _start(runs: Path, name: str, count: int, options: tuple[str, ...]) -> Started:
    """Start `aft-lens train` on that many GPUs, in a process group of its own."""
    command = [
        sys.executable, "-m", "app.cli", "train", *options, f"--name={name}", f"--out={runs}", "--data.resident=true",
        "--trainer.accelerator=gpu", f"--trainer.devices={count}", "--trainer.precision=bf16-mixed",
        f"--trainer.strategy={'ddp' if count > 1 else 'auto'}",
    ]  # fmt: skip
    log = runs / f"{name}.log"
    with log.open("ab") as sink:
        return subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True), log


def _wait(started: Started) -> None:
    """Wait for a run; RuntimeError with the end of its log if it failed."""
    process, log = started
    if process.wait():
        raise RuntimeError(f"{' '.join(map(str, process.args))} failed:\n{log.read_text()[-3000:]}")  # type: ignore[arg-type]


def _accuracy(path: Path) -> float:
    """Test accuracy of a checkpoint, percent."""
    saved = load_checkpoint(path, "cuda")
    data = load_data(saved.data["name"])
    batches = ResidentBatches(data, "test", 250, device="cuda")
    return 100 * evaluate(saved.model, batches, data.classes, device="cuda").accuracy


def _line(row: dict[str, Any]) -> str:
    scores = row["test_accuracy"]
    return (
        f"{row['gpus']} GPUs  {row['images_per_second']:8,.0f} images/s  efficiency {row['scaling_efficiency']:.2f}  "
        f"{row['peak_memory_mib']:,.0f} MiB a GPU  test accuracy {statistics.fmean(scores):.2f} "
        f"± {statistics.stdev(scores):.2f} %"
    )
