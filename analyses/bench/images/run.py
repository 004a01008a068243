"""Image files on their way to the GPU, by stage, and training and evaluation from them: `aft-lens bench images`."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

from aft_lens.data import reading_workers, usable_cores
from aft_lens.files import write_whole
from analyses.bench.images.files import COLUMNS, ROWS, make_files
from analyses.bench.images.record import NAME, ImagesRecord, Run, Stage
from analyses.bench.images.runs import KINDS, TIMES, evaluation, training
from analyses.bench.images.stages import loader_alone, stages
from analyses.provenance import RESULTS, made_by
from analyses.result import dump

FOLDER = Path("data/bench-images")
"""Where the files are made, once."""
FILES, BATCH, EPOCHS, PASSES = 16_000, 256, 5, 4
METHOD = (
    f"{FILES:,} JPEG files of {COLUMNS} x {ROWS} pixels, made here, in the page cache; AFT-conv small 11/384 at 224 "
    f"pixels, bfloat16 autocast, blocks compiled, batch {BATCH}. Stages: each alone at full speed, images/s. "
    "Training: `aft-lens train` by imagenet-conv-small (no stochastic depth; passes replayed as CUDA graphs) on one "
    f"device, images/s, median over {EPOCHS - 1} epochs after the first; from memory it takes uint8 images of 224 "
    "pixels that lie on the device, without augmentation; from files plain is a random resized crop and flip, DeiT is "
    "RandAugment m9 mstd0.5 inc1, random erasing per pixel, Mixup and CutMix. "
    f"Evaluation: every file {TIMES} times by centre crop, the start of the loader included, beside the forward pass "
    "on batches that lie on the device."
)


def command(out: Path | None = None, *, quick: bool = False) -> None:
    """Measure, print and save; what needs a GPU is left out without one, and said."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    files, batch = (400, 16) if quick else (FILES, BATCH)
    folder = make_files(FOLDER.with_name(f"{FOLDER.name}-quick") if quick else FOLDER, files)
    weights = [path.stat().st_size for path in (folder / "train").glob("*/*.jpg")]
    path = (out or RESULTS) / NAME
    result = ImagesRecord(**made_by(device), method=METHOD, cores=usable_cores(), files=files,
                          mean_kilobytes=fmean(weights) / 1e3, batch=batch)  # fmt: skip
    workers = reading_workers()
    for stage in measured_stages(folder, batch, workers, device):
        print(f"{stage.name:34} {stage.images_per_second:10,.0f} images/s  {stage.where}", flush=True)
        result = _write(replace(result, stages=(*result.stages, stage)), path)
    whole, memory = loader_alone(folder, batch, workers, device, "deit", 2 if quick else PASSES)
    print(f"{whole.name:34} {whole.images_per_second:10,.0f} images/s; host memory, MiB: {memory}", flush=True)
    result = _write(replace(result, stages=(*result.stages, whole), memory_mib=memory), path)
    if device.type == "cuda":
        for run in measured_runs(folder, files, batch, device, 2 if quick else EPOCHS):
            print(f"{run.name:34} {run.images_per_second:10,.0f} images/s  {[*map(round, run.epochs)]}", flush=True)
            result = _write(replace(result, runs=(*result.runs, run)), path)
    else:
        print("training and evaluation are measured on a CUDA device, none was found")
    print(f"ratios: {result.ratios}; the slowest stage: {result.bottleneck}")
    print(f"wrote {path}")


def measured_stages(folder: Path, batch: int, workers: int, device: torch.device) -> Iterator[Stage]:
    """Stages for DeiT's augmentation, and the loader with a plain one."""
    yield from stages(folder, batch, workers, device, "deit")
    yield loader_alone(folder, batch, workers, device, "resized-crop", 2)[0]


def measured_runs(folder: Path, files: int, batch: int, device: torch.device, epochs: int) -> Iterator[Run]:
    """Training from memory and from files, then evaluation."""
    for name in KINDS:
        yield training(name, folder, files, batch, epochs)
    yield from evaluation(folder, batch, device)


def _write(result: ImagesRecord, path: Path) -> ImagesRecord:
    """Write what is measured so far, and give it back."""
    write_whole(path, dump(result.record()))
    return result
