"""Images a second of a training run that has the device to itself."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure

from aft_lens.checkpoint import read_metrics
from aft_lens.models import ModelConfig
from aft_lens.training import Recipe, train
from analyses.cells import Crew
from analyses.provenance import made_by
from analyses.result import Result, Table
from analyses.study.plan import Study, tasks
from analyses.theme import axes, layout

NAME = "training_speed.json"
STEPS, EPOCHS = 100, 3
"""Of each measurement; the first epoch, which compiles and warms up, does not count."""


@dataclass(frozen=True)
class SpeedRow:
    """A model trained for a moment."""

    model: str
    precision: str
    """Lightning's word, e.g. bf16-mixed."""
    compiled: bool
    cuda_graphs: bool
    """Whether its passes are replayed as CUDA graphs."""
    batch_size: int
    images_per_second: Sequence[float]
    """Of each epoch but the first."""
    peak_memory_mib: float | None
    """Of the GPU; None on a CPU."""

    @property
    def words(self) -> str:
        """The model and how it is run."""
        means = (("compiled", self.compiled), ("CUDA graphs", self.cuda_graphs))
        return ", ".join([self.model, *(words for words, used in means if used)])


@dataclass(frozen=True)
class TrainingSpeed(Result):
    """The study's models as they are, compiled, and with CUDA graphs."""

    name = Path(NAME).stem

    command: str
    hardware: str
    versions: Mapping[str, str]
    seed: int
    method: str
    rows: Sequence[SpeedRow] = ()

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "TrainingSpeed":
        """From the content of the JSON."""
        return cls(**{**record, "rows": [SpeedRow(**row) for row in record["rows"]]})

    def record(self) -> dict[str, Any]:
        """Everything measured, with the command that measured it."""
        return asdict(self)

    def table(self) -> Table:
        """A model and a way to run it a row."""
        rows = [
            [row.model, row.precision, str(row.compiled), str(row.cuda_graphs), f"{row.images_per_second[-1]:,.0f}",
             "-" if row.peak_memory_mib is None else f"{row.peak_memory_mib:,.0f}"]
            for row in self.rows
        ]  # fmt: skip
        columns = ("model", "precision", "compiled", "graphs", "images/s", "peak MiB")
        return Table(columns, rows, note=f"{self.method}; on {self.hardware}", words=4)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Images a second of the last epoch."""
        axis = figure.subplots()
        bars = axis.barh([row.words for row in self.rows], [row.images_per_second[-1] for row in self.rows])
        axis.bar_label(bars, [f"{row.images_per_second[-1]:,.0f}" for row in self.rows], padding=3)
        axis.invert_yaxis()
        axis.set_xlim(0, 1.25 * max((row.images_per_second[-1] for row in self.rows), default=1.0))
        axis.locator_params(axis="x", nbins=4)
        axis.set_xlabel("training, images/s")

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        rates = [row.images_per_second[-1] for row in self.rows]
        figure = go.Figure(go.Bar(x=rates, y=[row.words for row in self.rows], orientation="h"))
        figure.update_xaxes(title="training, images/s")
        figure.update_yaxes(autorange="reversed")
        return layout(axes(figure), height=120 + 32 * len(rates))


def run(study: Study, *, crew: Crew, out: Path) -> None:
    """Measure the study's AFT-conv and ViT and the tiny AFT-conv, as they are, then as the study asks; print and save.

    A study that compiles and replays CUDA graphs is measured with compiling alone too.
    """
    base = {task.configuration.name: task.recipe for task in tasks(replace(study, only=(), seeds=1))}
    conv, device = base["conv"], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = {
        "AFT-conv tiny 11/32": replace(conv, model=_tiny(conv.model)),
        "AFT-conv of the study": conv,
        "ViT of the study": base["vit"],
    }
    if study.cuda_graphs and device.type != "cuda":
        raise ValueError("study.cuda_graphs needs a CUDA device, found none; set it to false")
    limit = study.limit_batches if isinstance(study.limit_batches, int) else STEPS
    method = f"{EPOCHS} epochs of {limit} steps by `train`, data on the device; rates of all epochs but the first"
    result = TrainingSpeed(**made_by(device), seed=0, method=method)
    asked = bool(study.compile)
    for compiled, graphs in dict.fromkeys([(False, False), (asked, False), (asked, study.cuda_graphs)]):
        for name, recipe in chosen.items():
            where = replace(recipe.trainer, epochs=EPOCHS, compile=compiled, cuda_graphs=graphs, limit_batches=limit)
            row = _measure(name, replace(recipe, trainer=where), device)
            result = replace(result, rows=[*result.rows, row])
            result.write_record(out / NAME)
            print(f"{row.words}: {row.images_per_second[-1]:,.0f} images/s", flush=True)
    print(f"\n{result}\n{out / NAME}")


def _measure(name: str, recipe: Recipe, device: torch.device) -> SpeedRow:
    """Train for a moment."""
    with tempfile.TemporaryDirectory() as folder:
        torch.compiler.reset()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        rows = read_metrics(train(recipe, Path(folder) / "run", progress=False))
    return SpeedRow(
        name,
        recipe.trainer.precision,
        recipe.trainer.compile is True,
        recipe.trainer.cuda_graphs is True,
        int(recipe.data.batch_size),
        [row["images_per_second"] for row in rows[1:]],
        torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else None,
    )


def _tiny(model: ModelConfig) -> ModelConfig:
    """The paper's tiny AFT-conv 11/32 on the study's images; at patch 2 of 28 x 28 they have its T = 196."""
    return replace(model, embed_dim=192, depth=12, num_heads=32, mlp_ratio=4.0)
