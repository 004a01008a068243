"""Training and evaluation from image files beside the same from memory, as `aft-lens train` and `evaluate` do them."""

import statistics
import time
from pathlib import Path

import torch

from aft_lens.checkpoint import read_metrics
from aft_lens.data import load_data
from aft_lens.models import VisionModel
from aft_lens.training import compile_blocks, evaluate, fitted, read_recipe, recipe_data, remove_run, train
from analyses.bench.images.record import Run
from analyses.bench.images.stages import SIDE

RECIPE = "imagenet-conv-small"
COMMON = (
    "trainer.devices=1", "trainer.strategy=auto", "data.repeats=1", "data.mixup=0", "data.cutmix=0",
    "model.drop_path=0",
)  # fmt: skip
KINDS = {
    "train from memory": ("data.resident=true", "data.augment=none"),
    "train from files": ("data.augment=resized-crop",),
    "train from files, DeiT": ("data.augment=deit", "data.mixup=0.8", "data.cutmix=1.0"),
}
"""What is changed in the recipe."""
LEFT_OUT = 1
"""First epochs, which compile."""
TIMES = 3
"""That every file is evaluated, so that the start of worker processes does not count."""


def training(name: str, folder: Path, files: int, batch: int, epochs: int) -> Run:
    """A run of one of `KINDS`: images a second, median over the epochs but the first."""
    options = [*COMMON, *KINDS[name], f"data.batch_size={batch}", f"trainer.epochs={epochs}"]
    options += [f"data.name={f'synthetic:{files}' if 'memory' in name else f'folder:{folder}'}"]
    recipe = read_recipe(RECIPE, *options)
    data = recipe_data(recipe)
    path = folder.with_name(f"{folder.name}-runs") / name.replace(" ", "-").replace(",", "")
    remove_run(path)
    train(fitted(recipe, data, ()), path, data=data, progress=False)
    rates = [row["images_per_second"] for row in read_metrics(path)][LEFT_OUT:]
    remove_run(path)
    return Run(name, statistics.median(rates), rates)


def evaluation(folder: Path, batch: int, device: torch.device) -> tuple[Run, Run]:
    """The forward pass alone on batches that are there, and evaluation of the files; bfloat16, compiled."""
    recipe = read_recipe(RECIPE)
    data = load_data(f"folder:{folder}", img_size=SIDE)
    model = VisionModel(recipe.model).to(device).eval()
    compile_blocks(model)
    images = [torch.randn(batch, 3, SIDE, SIDE, device=device) for _ in range(3)]
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        for _ in range(3):
            model(images[0])
        torch.cuda.synchronize(device)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < 2:
            for each in images * 4:
                model(each)
            torch.cuda.synchronize(device)
            count += 12 * batch
        forward = Run("forward pass", count / (time.perf_counter() - started))
        split = data.train.some(list(range(len(data.train))) * TIMES)  # type: ignore[union-attr]
        started = time.perf_counter()
        found = evaluate(model, split, list(map(str, range(1000))), batch_size=batch, device=device)
        return forward, Run("evaluate from files", found.images / (time.perf_counter() - started))
