"""What the study trains: which configurations, with which seeds, for how long, at which learning rates."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from aft_lens.training import Recipe, fits_cuda_graphs, read_recipe
from analyses.provenance import RESULTS
from analyses.result import record_path
from analyses.store import Store, fingerprint
from analyses.study.configurations import CLAIMED, CONFIGURATIONS, CONTROLS, FAMILIES, RIVALS, Configuration

TUNING_SEED = 100
"""Of the runs that choose learning rates: no seed that anything is judged by."""
RATES = tuple(product((0.002, 0.004, 0.008), (3.0, 10.0, 30.0)))
"""Learning rate, and the position biases' over it: what each configuration that has them is tuned over."""
PLAIN_RATES = tuple((lr, 1.0) for lr in (0.0005, 0.0007, 0.001, 0.0014, 0.002, 0.0028, 0.004, 0.0056, 0.008))
"""The same of those without position biases: as many runs, up to the same rate."""
UNBIASED = ("vit", "pool")
START_RATES = (0.002, 1.0)
"""Of the run that others start from where rates are tuned: one of `PLAIN_RATES`."""
TUNED = "tuning.json"


@dataclass(frozen=True)
class Plan:
    """A set of runs that answer one question."""

    words: str
    configurations: tuple[Configuration, ...]
    epochs: int
    seeds: int
    more: Mapping[str, int]
    """Seeds of single configurations, where they differ."""
    held_out: bool = True
    """Whether validation images stay out of training."""


_SPARSE = tuple(CONFIGURATIONS[name] for name in ("conv", "single", "entropy"))
_LONG = tuple(CONFIGURATIONS[name] for name in ("conv", "vit", "single-96", "entropy", "single"))
PLANS: Mapping[str, Plan] = {
    "tuning": Plan(
        "learning rates by validation accuracy",
        tuple(each for each in CONFIGURATIONS.values() if not each.tuned_as), epochs=4, seeds=1, more={},
    ),
    "claims": Plan("the paper's claims", CLAIMED, epochs=5, seeds=10, more={}),
    "sparsity": Plan(
        "which positions matter, and rivals of Eq. 9 and 10", (*_SPARSE, *CONTROLS, *RIVALS), epochs=10, seeds=5,
        more={each.name: 3 for each in RIVALS},
    ),
    "long": Plan("models that ship", _LONG, epochs=100, seeds=3, more={"entropy": 1, "single": 1}, held_out=False),
}  # fmt: skip
"""By name."""


@dataclass(frozen=True)
class Study:
    """What is trained, where, and for how long. Raises ValueError on values that cannot be run."""

    runs: Path = Path("runs/study")
    """Folder of the runs; finished ones in it are not trained again."""
    plan: str = "claims"
    """claims (the paper's), sparsity (controls and rivals), long (models that ship) or tuning (learning rates)."""
    family: str = "fashion"
    """cifar10 (T = 256), fashion (Fashion-MNIST, T = 196) or digits (small, to try the study)."""
    seeds: int = 0
    """Seeds 0, 1, ... of each configuration; 0 is as many as the plan says."""
    epochs: int = 0
    """Epochs of each run; 0 is as many as the plan says."""
    batch_size: int = 500
    """Images a step."""
    tuned: bool = True
    """Take the learning rates that the plan "tuning" found; false takes the recipes'."""
    root: str | None = None
    """Folder of downloaded data; data/ if left out."""
    accelerator: str = "auto"
    """auto, cpu or gpu."""
    compile: str = ""
    """torch.compile's mode, e.g. default; left out, models are not compiled."""
    cuda_graphs: bool = False
    """Replay the training passes of the mixers that allow it as CUDA graphs."""
    only: tuple[str, ...] = ()
    """Configurations, with what they start from; all of the plan if left out."""
    limit_batches: int | float = 1.0
    """Batches an epoch, a share or a number, to try the study."""
    rows: Path | None = None
    """Runs that another machine finished, which are taken over: its folder of runs, a tar of it, or what `judge` wrote
    of them."""
    commit: str = ""
    """Of the source, where it is no checkout."""

    def __post_init__(self) -> None:
        """Check every value."""
        if self.plan not in PLANS:
            raise ValueError(f"study.plan must be one of {', '.join(PLANS)}, got {self.plan!r}")
        if self.family not in FAMILIES:
            raise ValueError(f"study.family must be one of {', '.join(FAMILIES)}, got {self.family!r}")
        known = [each.name for each in PLANS[self.plan].configurations if self.family in each.families]
        unknown = [name for name in self.only if name not in known]
        if unknown:
            raise ValueError(f"study.only must be of {', '.join(known)}, got {', '.join(unknown)}")
        if min(self.seeds, self.epochs) < 0:
            raise ValueError(f"study: seeds and epochs must be 0 or more, got {self.seeds} and {self.epochs}")


@dataclass(frozen=True)
class Task:
    """One run of the study."""

    name: str
    """Of its folder and JSON below the study's runs."""
    configuration: Configuration
    recipe: Recipe
    plan: str
    family: str
    runs: Path
    commit: str
    """Of the source, where it is no checkout."""

    @property
    def path(self) -> Path:
        """The run's checkpoint folder."""
        return self.runs / self.name

    @property
    def store(self) -> Store:
        """Where the run's JSON is kept under its name, there once it has finished."""
        return Store(self.runs)

    @property
    def after(self) -> str | None:
        """Name of the run that it starts from."""
        start = self.configuration.start
        end = _rates_end(START_RATES) if self.plan == "tuning" else f"s{self.recipe.seed}"
        return start and f"{self.family}-{self.plan}-{start}-{end}"

    @property
    def start(self) -> Path | None:
        """The checkpoint that the run starts from."""
        return None if self.after is None else self.runs / self.after

    @property
    def mark(self) -> str:
        """Fingerprint of all that a finished run must agree on."""
        return fingerprint(self.identity())

    def at(self, rates: tuple[float, float] | None) -> "Task":
        """The same at a learning rate and the position biases' over it; at its own for None."""
        if rates is None:
            return self
        optim = replace(self.recipe.optim, lr=rates[0], bias_lr_scale=rates[1])
        return replace(self, recipe=replace(self.recipe, optim=optim))

    def of(self, seed: int, end: str) -> "Task":
        """The same with a seed, and a name that ends so."""
        return replace(self, name=f"{self.name}-{end}", recipe=replace(self.recipe, seed=seed))

    def identity(self) -> dict[str, Any]:
        """What a finished run must agree on with this one to stand for it."""
        recipe = json.loads(json.dumps(asdict(self.recipe)))
        del recipe["trainer"], recipe["data"]["root"]
        return {
            "configuration": self.configuration.name, "plan": self.plan, "family": self.family,
            "epochs": self.recipe.trainer.epochs, "recipe": recipe,
        }  # fmt: skip


def tasks(study: Study, rates: Mapping[str, Any] | None = None) -> list[Task]:
    """Every run of the study, seed by seed, although a worker goes on with the configuration that it began.

    `rates` has the tuned learning rates by family and configuration (`read_rates`).
    """
    plan = PLANS[study.plan]
    starts = {each.start for each in plan.configurations if each.name in study.only}
    chosen = [
        each for each in plan.configurations
        if study.family in each.families and (not study.only or each.name in starts.union(study.only))
    ]  # fmt: skip
    parsed = cache(partial(_task, study))  # parsing a recipe takes a tenth of a second
    if study.plan == "tuning":
        return [
            parsed(each).at(pair).of(TUNING_SEED, _rates_end(pair))
            for each in chosen for pair in (PLAIN_RATES if each.name in UNBIASED else RATES)
        ]  # fmt: skip
    own = rates if rates is not None else read_rates(study)
    counts = {each.name: study.seeds or plan.more.get(each.name, plan.seeds) for each in chosen}
    return [
        parsed(each).at(own.get(each.tuned)).of(seed, f"s{seed}")
        for seed in range(max(counts.values(), default=0)) for each in chosen if seed < counts[each.name]
    ]  # fmt: skip


def read_rates(study: Study, results: Path = RESULTS) -> dict[str, tuple[float, float]]:
    """The tuned learning rates of a study's family by configuration; empty where it takes the recipes'.

    Raises ValueError, with the next step, where some are missing.
    """
    if not study.tuned:
        return {}
    path = record_path(results / TUNED)
    chosen = json.loads(path.read_text(encoding="utf-8"))["chosen"] if path.is_file() else {}
    found = {name: (row["lr"], row["bias_lr_scale"]) for name, row in chosen.get(study.family, {}).items()}
    needed = {each.tuned for each in PLANS[study.plan].configurations if study.family in each.families}
    if missing := sorted(needed - set(found)):
        raise ValueError(
            f"{TUNED} has no learning rates of {study.family} for {', '.join(missing)}; tune them first (`aft-lens "
            f"study train --study.plan tuning --study.family {study.family}`, then `aft-lens study tuning`), or set "
            "study.tuned to false"
        )
    return found


def _rates_end(rates: tuple[float, float]) -> str:
    """How the name of a run ends whose rates are tried."""
    return f"lr{rates[0]:g}-x{rates[1]:g}"


def _task(study: Study, configuration: Configuration) -> Task:
    """A configuration at its recipe's learning rates."""
    plan, family = PLANS[study.plan], FAMILIES[study.family]
    epochs = study.epochs or plan.epochs
    recipe = read_recipe(
        f"{study.family}-{configuration.recipe}",
        "data.resident=true", "data.workers=0", "data.mixup=0.0", *family.changes,
        *((f"model.img_size={family.crop}", "data.augment=resized-crop") if configuration.crops else ()),
        f"data.batch_size={study.batch_size}", f"data.held_out={str(plan.held_out).lower()}",
        f"optim.warmup_epochs={max(0.5, epochs / 10)}",
        f"trainer.epochs={epochs}", f"trainer.accelerator={study.accelerator}",
        f"trainer.compile={str(bool(study.compile)).lower()}", f"trainer.compile_mode={study.compile or 'default'}",
        f"trainer.limit_batches={study.limit_batches}", *configuration.changes,
        *(() if study.root is None else (f"data.root={study.root}",)),
    )  # fmt: skip
    graphs = study.cuda_graphs and fits_cuda_graphs(recipe.model)
    recipe = replace(recipe, trainer=replace(recipe.trainer, cuda_graphs=graphs))
    name = f"{study.family}-{study.plan}-{configuration.name}"
    return Task(name, configuration, recipe, study.plan, study.family, study.runs, study.commit)
