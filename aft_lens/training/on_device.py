"""What a recipe leaves to the machine: precision, compilation, and the batch that fits into a GPU's memory."""

from collections.abc import Sized
from dataclasses import replace

import torch
import torch.nn.functional as F

from aft_lens.models import VisionModel
from aft_lens.training.recipe import AnyRecipe, Recipe, fits_cuda_graphs

SMALLEST, LARGEST = 16, 4096
"""Batches that are tried, powers of two."""
SHARE = 0.8
"""Of the GPU's free memory that a step may take: the rest is for batches in waiting and the average of weights."""


def on_gpu(recipe: AnyRecipe) -> bool:
    """Whether a recipe trains on a CUDA device here."""
    return recipe.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def chosen_precision(recipe: AnyRecipe) -> str:
    """A recipe's `trainer.precision`; auto is bf16-mixed on a GPU and 32-true elsewhere."""
    asked = recipe.trainer.precision
    return asked if asked != "auto" else "bf16-mixed" if on_gpu(recipe) else "32-true"


def settled(recipe: AnyRecipe, data: Sized) -> AnyRecipe:
    """The recipe with a value for everything that it leaves to the machine.

    `trainer.precision` and `trainer.compile` auto are bf16-mixed and true on a GPU, 32-true and false elsewhere;
    `trainer.cuda_graphs` auto is true on a GPU for a model that fits them and takes its steps one batch at a time;
    `data.batch_size` auto is found by trying. `data` are the training items. Raises ValueError where that cannot be
    tried: without a GPU, or for several devices.
    """
    gpu = on_gpu(recipe)
    trainer = replace(recipe.trainer, precision=chosen_precision(recipe))
    if trainer.compile == "auto":
        trainer = replace(trainer, compile=gpu)
    if trainer.cuda_graphs == "auto":
        fits = fits_cuda_graphs(recipe.model) and recipe.optim.accumulate == 1
        trainer = replace(trainer, cuda_graphs=gpu and fits)
    recipe = replace(recipe, trainer=trainer)
    if not isinstance(recipe, Recipe) or recipe.data.batch_size != "auto":
        return recipe
    if not gpu or trainer.devices not in (1, "1") or trainer.num_nodes > 1:
        raise ValueError(
            "data.batch_size auto is found by trying on one GPU; give a number of images for the CPU and for several "
            "devices"
        )
    return replace(recipe, data=replace(recipe.data, batch_size=fitting_batch(recipe, len(data))))


def fitting_batch(recipe: Recipe, images: int) -> int:
    """The largest power of two, up to `images`, of which a training step fits into the GPU's free memory.

    Raises ValueError if not even `SMALLEST` images fit. Steps are not compiled, which takes more memory than they will.
    """
    device, size = torch.device("cuda", torch.cuda.current_device()), SMALLEST
    free = torch.cuda.mem_get_info(device)[0]
    with torch.random.fork_rng(devices=[device]):
        model = VisionModel(recipe.model).to(device)
        found = 0
        while size <= min(LARGEST, max(images, SMALLEST)) and _peak(model, recipe, size, device) < SHARE * free:
            found, size = size, 2 * size
    del model
    torch.cuda.empty_cache()
    if not found:
        raise ValueError(f"data.batch_size auto: {SMALLEST} images do not fit into {free / 2**30:.1f} GiB; choose a "
                         "smaller model")  # fmt: skip
    return found


def _peak(model: VisionModel, recipe: Recipe, size: int, device: torch.device) -> float:
    """Bytes that a step of so many images takes at most; infinity if they do not fit."""
    config = recipe.model
    torch.cuda.reset_peak_memory_stats(device)
    mixed = recipe.trainer.precision != "32-true"
    dtype = torch.float16 if recipe.trainer.precision == "16-mixed" else torch.bfloat16
    try:
        images = torch.randn(size, config.in_chans, config.img_size, config.img_size, device=device)
        labels = torch.zeros(size, dtype=torch.long, device=device)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)
        with torch.autocast("cuda", dtype, enabled=mixed):
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device))
    except torch.cuda.OutOfMemoryError:
        return float("inf")
    finally:
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
