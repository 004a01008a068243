"""Test accuracy of the digits recipes over several seeds: `python -m analyses.digits_accuracy`."""

import json
import logging
import statistics
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

from jsonargparse import auto_cli

from aft_lens.checkpoint import load_checkpoint
from aft_lens.data import load_data
from aft_lens.training import evaluate, read_recipe, train
from analyses.provenance import environment

RECIPES = ("digits-vit", "digits-conv", "digits-entropy", "digits-single")


@dataclass(frozen=True)
class Run:
    """One training run."""

    recipe: str
    seed: int
    accuracy: float
    """Share of the test images that are right."""
    seconds: float
    """Wall clock of the training, validation and checkpoints included."""


def measure(recipe: str, seed: int, out: Path) -> Run:
    """Train a recipe from nothing into a folder of its own and evaluate it on the test images."""
    chosen = read_recipe(recipe, f"seed={seed}")
    start = time.perf_counter()
    path = train(chosen, out / f"{recipe}-{seed}")
    seconds = time.perf_counter() - start
    data = load_data(chosen.data.name, img_size=chosen.model.img_size)
    return Run(recipe, seed, evaluate(load_checkpoint(path).model, data.test, data.classes).accuracy, seconds)


def command(
    seeds: list[int] = [0, 1, 2],  # noqa: B006 - read only; the command line shows it
    out: Path = Path("runs/digits-accuracy"),
    result: Path = Path("analyses/results/digits_accuracy.json"),
) -> None:
    """Train every digits recipe with each seed and publish the accuracies.

    Args:
        seeds: Seeds to train with.
        out: Folder of the trained checkpoints; it must not hold earlier ones.
        result: JSON file to write.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    runs = []
    for recipe in RECIPES:
        for seed in seeds:
            with warnings.catch_warnings():
                # Lightning's advice on loader workers; the images are in memory.
                warnings.filterwarnings("ignore", category=UserWarning, module="lightning")
                runs.append(measure(recipe, seed, out))
            print(f"{recipe} seed {seed}: {100 * runs[-1].accuracy:.2f} % in {runs[-1].seconds:.0f} s", flush=True)
    summary = {
        recipe: {
            "accuracy_mean": statistics.mean(run.accuracy for run in runs if run.recipe == recipe),
            "accuracy_lowest": min(run.accuracy for run in runs if run.recipe == recipe),
            "seconds_longest": max(run.seconds for run in runs if run.recipe == recipe),
        }
        for recipe in RECIPES
    }
    record = {
        "command": "python -m analyses.digits_accuracy",
        **environment(),
        "seeds": seeds,
        "recipes": summary,
        "runs": [asdict(run) for run in runs],
    }
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {result}")


if __name__ == "__main__":
    auto_cli(command)
