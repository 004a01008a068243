"""What the study trains: configurations as changes of shipped recipes, in order of importance."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from aft_lens.training import Recipe, fits_cuda_graphs, read_recipe
from analyses.store import Store, fingerprint

FAMILIES = ("fashion", "digits")
SHIPPED = ("vit", "conv", "full", "entropy", "single")
"""Configurations also trained for long with seed 0, whose checkpoints ship."""
SMALLER = "w7"
"""Base of the ablations that the paper makes at kernel 7 (Table 10, Sec. 5.3)."""


@dataclass(frozen=True)
class Configuration:
    """A recipe and what is changed in it."""

    name: str
    words: str
    """For tables."""
    recipe: str
    """Shipped recipe without its data set's name, e.g. conv for fashion-conv."""
    changes: tuple[str, ...] = ()
    """Fields by dotted name, e.g. model.window_size=7."""
    start: str | None = None
    """Configuration whose trained weights of the same seed it starts from (a ViT: Table 8); None is random."""
    sizes: tuple[float, ...] = ()
    """Test sizes beyond the training size, as multiples of it."""
    longer: float = 1.0
    """Epochs of the run that ships, as a multiple of the study's `long_epochs`."""


CONFIGURATIONS = (
    Configuration("vit", "ViT", "vit", longer=5 / 3),
    Configuration("conv", "AFT-conv 11/16", "conv", sizes=(1.5, 2.0)),
    Configuration("full", "AFT-full, factorized", "full"),
    Configuration("single", "AFT-conv 11/16, single position", "single"),
    Configuration("entropy", "AFT-conv 11/16, entropy 0.001", "entropy"),
    Configuration("w7", "AFT-conv 7/16", "conv", ("model.window_size=7",)),
    Configuration("w7-free", "AFT-conv 7/16, naive w", "conv", ("model.window_size=7", "model.position_bias=free")),
    Configuration("w7-only", "AFT-conv 7/16, window alone", "conv", ("model.window_size=7", "model.outside=none")),
    Configuration("no-query", "AFT-conv 11/16 without query", "conv", ("model.use_query=false",)),
    Configuration("transfer", "AFT-conv 11/16 from the ViT", "conv", start="vit"),
    Configuration("full-free", "AFT-full, not factorized", "full", ("model.position_bias=free",)),
    Configuration("h32", "AFT-conv 11/32", "conv", ("model.num_heads=32",)),
    Configuration("h96", "AFT-conv 11/96", "conv", ("model.num_heads=96",)),
    Configuration("w3", "AFT-conv 3/16", "conv", ("model.window_size=3",)),
    Configuration("w27", "AFT-conv 27/16", "conv", ("model.window_size=27",)),
    Configuration("w19", "AFT-conv 19/16", "conv", ("model.window_size=19",)),
)
"""Most important first. a/b is kernel a and b heads; with width 96, 96 heads are one a channel as the paper's 384."""
KEPT = ("vit", "conv", "entropy", "single")
"""Configurations whose short runs keep their weights: a start for transfer, and the fashion ladder's models."""


@dataclass(frozen=True)
class Study:
    """What is trained, where, and for how long. Raises ValueError on values that cannot be run."""

    runs: Path = Path("runs/study")
    """Folder of the runs; finished ones in it are not trained again."""
    family: str = "fashion"
    """Recipes: fashion (Fashion-MNIST, T = 196) or digits (small, to try the study)."""
    seeds: int = 3
    """Seeds 0, 1, ... of each configuration."""
    epochs: int = 10
    """Epochs of each run that claims are judged by."""
    long_epochs: int = 60
    """Epochs of the runs that ship (times their `longer`); 0 leaves them out."""
    batch_size: int = 256
    """Images a step."""
    accelerator: str = "auto"
    """auto, cpu or gpu."""
    compile: str = ""
    """torch.compile's mode, e.g. default; left out, models are not compiled."""
    cuda_graphs: bool = False
    """Replay the training passes of the mixers that allow it as CUDA graphs."""
    only: tuple[str, ...] = ()
    """Configurations, with what they start from; all if left out."""
    limit_batches: int | float = 1.0
    """Batches an epoch, a share or a number, to try the study."""

    def __post_init__(self) -> None:
        """Check every value."""
        known = [configuration.name for configuration in CONFIGURATIONS]
        unknown = [name for name in self.only if name not in known]
        if unknown:
            raise ValueError(f"study.only must be of {', '.join(known)}, got {', '.join(unknown)}")
        if self.family not in FAMILIES:
            raise ValueError(f"study.family must be one of {FAMILIES}, got {self.family!r}")
        if min(self.seeds, self.epochs) < 1 or self.long_epochs < 0:
            raise ValueError(
                f"study: seeds and epochs must be 1 or more, long_epochs 0 or more; got {self.seeds}, {self.epochs} "
                f"and {self.long_epochs}"
            )


@dataclass(frozen=True)
class Task:
    """One run of the study."""

    name: str
    """Of its folder and JSON below the study's runs."""
    configuration: Configuration
    recipe: Recipe
    long: bool
    runs: Path

    @property
    def path(self) -> Path:
        """The run's checkpoint folder."""
        return self.runs / self.name

    @property
    def store(self) -> Store:
        """Where the run's JSON is kept under its name, there once it has finished."""
        return Store(self.runs)

    @property
    def fingerprint(self) -> str:
        """Of all that a finished run must agree on."""
        return fingerprint(self.identity())

    @property
    def start(self) -> Path | None:
        """The checkpoint that the run starts from."""
        if self.configuration.start is None:
            return None
        return self.runs / f"{self.configuration.start}-s{self.recipe.seed}"

    def identity(self) -> dict[str, Any]:
        """What a finished run must agree on with this one to stand for it."""
        recipe = json.loads(json.dumps(asdict(self.recipe)))
        del recipe["trainer"], recipe["data"]["root"]
        return {"configuration": self.configuration.name, "epochs": self.recipe.trainer.epochs, "recipe": recipe}


def tasks(study: Study) -> list[Task]:
    """Every run of the study: the long ones, which everything would wait for at the end, then by importance."""
    starts = {c.start for c in CONFIGURATIONS if c.name in study.only}
    chosen = [c for c in CONFIGURATIONS if not study.only or c.name in starts.union(study.only)]
    long = [c for c in chosen if c.name in SHIPPED] if study.long_epochs else []
    return [
        *(_task(study, c, 0, long=True) for c in long),
        *(_task(study, c, seed) for c in chosen for seed in range(study.seeds)),
    ]


def _task(study: Study, configuration: Configuration, seed: int, *, long: bool = False) -> Task:
    epochs = round(study.long_epochs * configuration.longer) if long else study.epochs
    source = f"{study.family}-{configuration.recipe}"
    recipe = read_recipe(
        source,
        f"seed={seed}",
        "data.resident=true",
        f"data.augment={'shift' if study.family == 'digits' else 'flip-crop'}",
        f"data.batch_size={study.batch_size}",
        f"optim.warmup_epochs={max(0.5, epochs / 10)}",
        f"trainer.epochs={epochs}",
        f"trainer.accelerator={study.accelerator}",
        *(("trainer.compile=true", f"trainer.compile_mode={study.compile}") if study.compile else ()),
        f"trainer.limit_batches={study.limit_batches}",
        *configuration.changes,
    )
    if study.cuda_graphs and fits_cuda_graphs(recipe.model):
        recipe = replace(recipe, trainer=replace(recipe.trainer, cuda_graphs=True))
    return Task(source if long else f"{configuration.name}-s{seed}", configuration, recipe, long, study.runs)
