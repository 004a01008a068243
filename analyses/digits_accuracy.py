"""Test accuracy of the digits recipes over several seeds: `python -m analyses.digits_accuracy`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from aft_lens.checkpoint import load_checkpoint
from aft_lens.data import load_data
from aft_lens.training import evaluate, read_recipe, train
from aft_lens.training.run import remove_run
from analyses import theme
from analyses.command import run_module
from analyses.provenance import RESULTS
from analyses.result import Result, Table, published
from analyses.store import Store, fingerprint

CLOCK = "processor time"
"""What seconds are measured by: what else a machine does changes them little."""
RECIPES = ("digits-vit", "digits-conv", "digits-entropy", "digits-single")


@dataclass(frozen=True)
class Run:
    """One training run."""

    recipe: str
    seed: int
    accuracy: float
    """Share of the test images that are right."""
    seconds: float
    """Processor time of the training, of all threads, validation and checkpoints included."""


@dataclass(frozen=True)
class DigitsAccuracy(Result):
    """Runs of every recipe with every seed."""

    runs: Sequence[Run]

    name = "digits_accuracy"
    size = (5.0, 3.0)

    def of(self, recipe: str) -> list[Run]:
        """The runs of a recipe."""
        return [run for run in self.runs if run.recipe == recipe]

    def record(self) -> dict[str, Any]:
        """A summary of each recipe, and every run."""
        return {
            "clock": CLOCK,
            "seeds": sorted({run.seed for run in self.runs}),
            "recipes": {
                recipe: {
                    "accuracy_mean": fmean(run.accuracy for run in self.of(recipe)),
                    "accuracy_lowest": min(run.accuracy for run in self.of(recipe)),
                    "seconds_longest": max(run.seconds for run in self.of(recipe)),
                }
                for recipe in RECIPES
            },
            "runs": self.runs,
        }

    def table(self) -> Table:
        """A row a recipe."""
        rows = [
            [
                recipe,
                f"{100 * row['accuracy_mean']:.2f} %",
                f"{100 * row['accuracy_lowest']:.2f} %",
                f"{row['seconds_longest']:.0f} s",
            ]
            for recipe, row in self.record()["recipes"].items()
        ]
        return Table(["recipe", "mean", "lowest", f"longest training, {CLOCK}"], rows)

    def plot(self, figure: Figure | SubFigure) -> None:
        """A dot a run."""
        axis = figure.subplots()
        axis.plot([run.recipe for run in self.runs], [100 * run.accuracy for run in self.runs], "o", alpha=0.6)
        axis.set_ylabel("test accuracy (%)")

    def interactive(self) -> go.Figure:
        """The same with seed and accuracy under the pointer."""
        dots = go.Scatter(
            x=[run.recipe for run in self.runs], y=[100 * run.accuracy for run in self.runs], mode="markers",
            customdata=[run.seed for run in self.runs],
            hovertemplate="%{x}, seed %{customdata}: %{y:.2f} %<extra></extra>",
        )  # fmt: skip
        figure = theme.layout(theme.axes(go.Figure(dots)), height=360)
        return figure.update_yaxes(title="test accuracy (%)")


def measure(recipe: str, seed: int, out: Path) -> Run:
    """Train a recipe from nothing into a folder of its own and evaluate it on the test images."""
    chosen = read_recipe(recipe, f"seed={seed}")
    remove_run(out / f"{recipe}-{seed}")  # of a call that was killed
    start = time.process_time()
    path = train(chosen, out / f"{recipe}-{seed}", progress=False)
    seconds = time.process_time() - start
    data = load_data(chosen.data.name, img_size=chosen.model.img_size)
    return Run(recipe, seed, evaluate(load_checkpoint(path).model, data.test, data.classes).accuracy, seconds)


def command(
    seeds: list[int] = [0, 1, 2],  # noqa: B006 - read only; the command line shows it
    out: Path = Path("runs/digits-accuracy"),
    result: Path = RESULTS / "digits_accuracy.json",
) -> None:
    """Train every digits recipe with each seed and publish the accuracies; a finished run is not trained again.

    Args:
        seeds: Seeds to train with.
        out: Folder of the trained checkpoints, and of a JSON of each that has finished.
        result: JSON file to write.
    """
    store, runs = Store(out), []
    for recipe, seed in product(RECIPES, seeds):
        name, mark = f"{recipe}-{seed}", fingerprint(read_recipe(recipe, f"seed={seed}"))
        kept = store.get(name, mark)
        runs.append(measure(recipe, seed, out) if kept is None else Run(**kept))
        store.put(name, mark, runs[-1])
        print(f"{name}: {100 * runs[-1].accuracy:.2f} %, {runs[-1].seconds:.0f} s of {CLOCK}", flush=True)
    accuracy = DigitsAccuracy(runs)
    print(f"{accuracy}\nwrote {published(accuracy, result)}")


if __name__ == "__main__":
    run_module("analyses.digits_accuracy", command)
