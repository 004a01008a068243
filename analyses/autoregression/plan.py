"""What Tables 2 to 6 are trained in small: settings of two tasks, seeds, and the recipe of each run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from aft_lens.models import DecoderConfig
from aft_lens.training import DecoderRecipe, OptimRecipe, SequenceRecipe, TrainerRecipe
from analyses.store import fingerprint

LAST_IMAGES, MEASURED_IMAGES = 500, 2000
"""Images that validate, and that test and training bits are measured on: the first ones."""


@dataclass(frozen=True)
class Setting:
    """One row of a table."""

    name: str
    words: str
    task: str
    tables: tuple[int, ...]
    """Of the paper, that it belongs to."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the task's model."""


PIXELS = DecoderConfig(length=784, grid=(28, 28, 1), embed_dim=128, depth=6, num_heads=4, window_size=64, bias_rank=32)
TEXT = DecoderConfig(length=256, embed_dim=192, depth=6, num_heads=6, window_size=32, bias_rank=64)
TOKENS = {"pixels": 32 * 784, "text": 64 * 256}
"""Symbols of a step."""
STEPS = {"pixels": 500, "text": 600}
RATE, DECAY, WARMUP = 2e-3, 0.1, 0.1
"""Learning rate of every run, weight decay, and share of the run that warms up; nothing is tuned by mixer."""

SETTINGS = (
    Setting("aft_local", "AFT-local, s 64, d' 32", "pixels", (2, 3)),
    Setting("aft_simple", "AFT-simple", "pixels", (2,), {"mixer": "aft_simple"}),
    Setting("attention", "Transformer", "pixels", (2,), {"mixer": "attention"}),
    Setting("local_attention", "local2d attention, blocks of 12 × 12", "pixels", (2,),
            {"mixer": "local_attention", "window_size": 12}),
    Setting("strided_attention", "strided attention", "pixels", (2,), {"mixer": "strided_attention"}),
    Setting("free", "AFT-local, s 64, w whole", "pixels", (3,), {"position_bias": "free"}),
    Setting("aft_local", "AFT-local, s 32, d' 64", "text", (4, 5, 6)),
    Setting("aft_simple", "AFT-simple", "text", (4,), {"mixer": "aft_simple"}),
    Setting("attention", "Transformer", "text", (4,), {"mixer": "attention"}),
    Setting("linear_attention", "Linear Transformer", "text", (4,), {"mixer": "linear_attention"}),
    Setting("performer", "Performer", "text", (4,), {"mixer": "performer"}),
    Setting("reformer", "Reformer", "text", (4,), {"mixer": "reformer"}),
    Setting("synthesizer", "Synthesizer", "text", (4,), {"mixer": "synthesizer"}),
    *(Setting(f"s{size}", f"AFT-local, s {size}", "text", (5,), {"window_size": size}) for size in (1, 4, 16, 64, 256)),
    *(Setting(f"t{size}", f"AFT-local, T {size}", "text", (6,), {"length": size}) for size in (128, 512)),
)  # fmt: skip
"""In one skeleton: 6 blocks, d = 128 on pixels and 192 on text. Steps of equally many symbols, whatever the length."""


@dataclass(frozen=True)
class Study:
    """What is trained, where, and for how long. Raises ValueError on values that cannot be run."""

    text: str
    """Text data: text:PATH or enwik8:PATH."""
    runs: Path = Path("runs/autoregression")
    """Folder of the runs; finished ones in it are not trained again."""
    seeds: int = 3
    """Seeds 0, 1, … of each setting."""
    images: str = "fashion-mnist"
    """Data set of the pixels, of 28 × 28 grey pixels."""
    root: str | None = None
    """Folder of downloaded data; data/ if left out."""
    accelerator: str = "auto"
    """auto, cpu or gpu."""
    precision: str = "bf16-mixed"
    """32-true or bf16-mixed."""
    share: float = 1.0
    """Of the steps of each run, to try the study."""
    only: tuple[str, ...] = ()
    """Settings by TASK-NAME; all if left out."""
    rows: Path | None = None
    """Runs that another machine finished, which are taken over: its folder of runs, a tar of it, or its
    autoregression.json."""
    commit: str = ""
    """Of the source, where it is no checkout."""

    def __post_init__(self) -> None:
        """Check every value."""
        known = [f"{each.task}-{each.name}" for each in SETTINGS]
        if unknown := [name for name in self.only if name not in known]:
            raise ValueError(f"study.only must be of {', '.join(known)}, got {', '.join(unknown)}")
        if self.seeds < 1 or not 0 < self.share <= 1:
            raise ValueError(f"study: seeds must be 1 or more and share in (0, 1], got {self.seeds}, {self.share}")


@dataclass(frozen=True)
class Task:
    """One run."""

    setting: Setting
    recipe: DecoderRecipe
    runs: Path
    commit: str

    @property
    def name(self) -> str:
        """Of its folder and JSON below the study's runs."""
        return f"{self.setting.task}-{self.setting.name}-s{self.recipe.seed}"

    def identity(self) -> dict[str, Any]:
        """What a finished run must agree on with this one to stand for it."""
        return identity(self.setting.task, self.setting.name, asdict(self.recipe))

    @property
    def mark(self) -> str:
        """Fingerprint of all that a finished run must agree on."""
        return fingerprint(self.identity())


def identity(task: str, setting: str, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must agree on to be the same: the recipe without where its data lies and what trains it.

    Numbers have six digits, as many as published records.
    """
    data = {key: value for key, value in recipe["data"].items() if key not in ("root", "name")}
    trainer = {key: recipe["trainer"][key] for key in ("epochs", "limit_batches", "precision")}
    optim = {key: float(f"{value:.6g}") for key, value in recipe["optim"].items()}
    parts = {**recipe, "data": data, "optim": optim, "trainer": trainer}
    return {"task": task, "setting": setting, "recipe": parts}


def tasks(study: Study) -> list[Task]:
    """Every run, seed by seed: what is broken off has every setting equally often."""
    chosen = [each for each in SETTINGS if not study.only or f"{each.task}-{each.name}" in study.only]
    return [
        Task(setting, _recipe(study, setting, seed), study.runs, study.commit)
        for seed in range(study.seeds) for setting in chosen
    ]  # fmt: skip


def _recipe(study: Study, setting: Setting, seed: int) -> DecoderRecipe:
    base, name = (PIXELS, study.images) if setting.task == "pixels" else (TEXT, study.text)
    model = replace(base, **setting.changes)
    steps = max(1, round(STEPS[setting.task] * study.share))
    rounds = 1 if setting.task == "pixels" else 3  # a text of 4 million bytes has some 240 steps an epoch
    return DecoderRecipe(
        model,
        SequenceRecipe(name, study.root, batch_size=max(1, TOKENS[setting.task] // model.length)),
        OptimRecipe(lr=RATE, weight_decay=DECAY, warmup_epochs=WARMUP * rounds, min_lr=RATE / 100),
        TrainerRecipe(
            epochs=rounds, limit_batches=-(-steps // rounds), accelerator=study.accelerator, precision=study.precision
        ),
        seed,
    )
