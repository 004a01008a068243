"""What is still to be trained of every plan, and what it costs: `python -m analyses.study.status`.

A GPU's seconds for a run are those that finished runs took of it: from start to row, shared with the runs beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.command import run_module
from analyses.provenance import RESULTS
from analyses.result import Result, Table, read_record
from analyses.study.configurations import FAMILIES, GRIDS
from analyses.study.plan import PLANS, Study, Task, read_rates, tasks
from analyses.study.record import Run
from analyses.study.speed import NAME, TrainingSpeed
from analyses.study.train import with_runs
from analyses.theme import axes, layout

HELD_OUT = 0.1
"""Share of the training images that validates."""


@dataclass(frozen=True)
class Pace:
    """What a run of a configuration costs a GPU."""

    images_per_second: float
    fixed: float = 0.0
    """Seconds a run beside its images: starting, compiling, measuring."""
    source: str = "runs"
    """Where it is from: runs (that finished), or the published speed of a model that trained alone."""

    def seconds(self, images: float) -> float:
        """A GPU's seconds for a run of so many images."""
        return self.fixed + images / self.images_per_second


@dataclass(frozen=True)
class Row:
    """A plan on a data set."""

    plan: str
    family: str
    runs: int
    finished: int
    images: float
    """That the missing runs train on, over all epochs."""
    seconds: float
    """Of one GPU, for the missing runs."""
    source: str
    """Of the paces."""
    needs: str = ""
    """What must be there first."""


@dataclass(frozen=True)
class Status(Result):
    """Plans in the order in which they are to be trained, with what fits into a budget."""

    name = "status"

    rows: Sequence[Row]
    budget: float
    gpus: int

    def record(self) -> dict[str, Any]:
        """Every row."""
        return asdict(self)

    def table(self) -> Table:
        """A plan and data set a row; the clock runs on from row to row."""
        rows, clock = [], 0.0
        for row in self.rows:
            wall = row.seconds / self.gpus
            fits = 1.0 if wall == 0 else min(1.0, max(0.0, self.budget - clock) / wall)
            clock += wall
            rows.append([
                row.plan, FAMILIES[row.family].words, str(row.runs), str(row.finished), f"{row.images / 1e6:,.1f}",
                f"{row.seconds:,.0f}", f"{clock:,.0f}", f"{100 * fits:.0f} %" if self.budget else "–", row.source,
                row.needs,
            ])  # fmt: skip
        columns = ("plan", "data", "runs", "finished", "million images", "GPU seconds", "done after, s", "fits",
                   "pace of", "needs first")  # fmt: skip
        budget = f", of which {self.budget:,.0f} s fit" if self.budget else ""
        return Table(columns, rows, note=f"{clock:,.0f} s with {self.gpus} GPU(s){budget}", words=2)

    def plot(self, figure: Figure | SubFigure) -> None:
        """A bar a plan and data set."""
        axis = figure.subplots()
        axis.barh([f"{row.plan}, {row.family}" for row in self.rows], [row.seconds for row in self.rows])
        axis.invert_yaxis()
        axis.set_xlabel("GPU seconds")

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        names = [f"{row.plan}, {row.family}" for row in self.rows]
        figure = go.Figure(go.Bar(x=[row.seconds for row in self.rows], y=names, orientation="h"))
        figure.update_yaxes(autorange="reversed")
        return layout(axes(figure.update_xaxes(title="GPU seconds")), height=320)


def images(task: Task) -> float:
    """Images that a run trains on, over all epochs."""
    share = 1 - HELD_OUT if task.recipe.data.held_out else 1.0
    limit = task.recipe.trainer.limit_batches
    an_epoch = share * FAMILIES[task.family].images
    if isinstance(limit, int):
        an_epoch = min(an_epoch, limit * int(task.recipe.data.batch_size))
    else:
        an_epoch *= limit
    return task.recipe.trainer.epochs * an_epoch


def measured_paces(runs: Sequence[tuple[Run, float]], gpus: int = 1) -> dict[tuple[str, str], Pace]:
    """Paces by family and configuration, from finished runs and the images of each, made on so many GPUs.

    A run has its share of the device: of a span that k runs had at a time on each GPU, one k-th.
    """
    spans = [(datetime.fromisoformat(run.started), datetime.fromisoformat(run.finished)) for run, _ in runs]
    paces: dict[tuple[str, str], Pace] = {}
    for (run, count), (start, end) in zip(runs, spans, strict=True):
        whole = max(1.0, (end - start).total_seconds())
        beside = sum(max(0.0, (min(end, b) - max(start, a)).total_seconds()) for a, b in spans) / whole
        at_a_time = max(1.0, beside / gpus)
        fixed = max(0.0, whole - count / run.images_per_second) / at_a_time
        paces[run.family, run.configuration] = Pace(at_a_time * run.images_per_second, fixed)
    return paces


def published_paces(speeds: TrainingSpeed) -> dict[str, Pace]:
    """Paces of a ViT and of an AFT-conv that trained alone, in the quickest way, as training_speed.json has them."""
    best = {
        name: max(row.images_per_second[-1] for row in speeds.rows if row.model == model)
        for name, model in (("vit", "ViT of the study"), ("conv", "AFT-conv of the study"))
    }
    return {name: Pace(rate, source=f"{NAME}, {speeds.hardware}") for name, rate in best.items()}


def status(study: Study, budget: float, gpus: int, run_gpus: int, results: Path = RESULTS) -> Status:
    """Every plan on both data sets of the claims: what is missing and what it costs."""
    plans = [replace(study, plan=plan, family=family, only=()) for plan in PLANS for family in GRIDS]
    planned = {(each.plan, each.family): _tasks(each, results) for each in plans}
    runs = [
        (run, images(task)) for todo, _ in planned.values() for task, run in with_runs(todo)
        if run.finished and not run.resumed
    ]  # fmt: skip
    measured = measured_paces(runs, run_gpus)
    speeds = TrainingSpeed.read(read_record(results / NAME, "`aft-lens study speed` on a GPU"))
    published = published_paces(speeds)
    rows = []
    for each in plans:
        todo, needs = planned[each.plan, each.family]
        done = set() if needs else {task.name for task, _ in with_runs(todo)}
        missing = [task for task in todo if task.name not in done]
        paces = [_pace(task, measured, published) for task in missing]
        counts = [images(task) for task in missing]
        seconds = sum(pace.seconds(count) for pace, count in zip(paces, counts, strict=True))
        source = "; ".join(dict.fromkeys(pace.source for pace in paces))
        rows.append(Row(each.plan, each.family, len(todo), len(done), sum(counts), seconds, source, needs))
    return Status(rows, budget, gpus)


def _tasks(study: Study, results: Path) -> tuple[list[Task], str]:
    """The plan's runs, at the recipes' rates where none are tuned yet, and what must be done first."""
    try:
        rates: Mapping[str, Any] = {} if study.plan == "tuning" else read_rates(study, results)
    except ValueError:
        return tasks(study, {}), "tuning"
    return tasks(study, rates), ""


def _pace(task: Task, measured: Mapping[tuple[str, str], Pace], published: Mapping[str, Pace]) -> Pace:
    """A configuration's own; else that of the slowest of the family which has run; else a published one."""
    own = measured.get((task.family, task.configuration.name))
    if own is not None:
        return own
    family = [pace for (name, _), pace in measured.items() if name == task.family]
    if family:
        slowest = max(family, key=lambda pace: pace.seconds(images(task)))
        return replace(slowest, source="slowest run")
    return published["vit" if task.configuration.recipe == "vit" else "conv"]


def command(study: Study | None = None, budget: float = 0.0, gpus: int = 1, run_gpus: int = 1) -> None:
    """Print which runs of each plan are missing, the images they train on, and the seconds that they cost.

    Args:
        study: Where runs are, and how they are trained; plans and data sets are all shown.
        budget: Seconds of the next lease, which say what of it fits in the order shown; 0 leaves that out.
        gpus: GPUs of the next lease.
        run_gpus: GPUs of the machine that the finished runs were trained on.
    """
    if budget < 0 or min(gpus, run_gpus) < 1:
        raise ValueError(
            f"budget must be 0 or more, gpus and run_gpus 1 or more, got {budget:g}, {gpus} and {run_gpus}"
        )
    print(status(study or Study(), budget, gpus, run_gpus))


if __name__ == "__main__":
    run_module("analyses.study.status", command, as_positional=False)
