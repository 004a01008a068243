"""Training a recipe: loaders, Trainer, logs, resuming."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from aft_lens.data import DataSource, load_data
from aft_lens.errors import Stopped
from aft_lens.files import locked, recovered
from aft_lens.models import VisionModel
from aft_lens.training.checkpointing import Checkpointing
from aft_lens.training.classifier import Classifier
from aft_lens.training.epoch_lines import EpochLines
from aft_lens.training.graphs import CudaGraphs
from aft_lens.training.gumbel_health import GumbelHealth
from aft_lens.training.moving_average import MovingAverage
from aft_lens.training.quiet import quiet_lightning
from aft_lens.training.recipe import Recipe
from aft_lens.training.resuming import ResumeFiles, WholeFiles, resume_file, resume_files
from aft_lens.training.stopping import StopTogether


class TrainingStopped(Stopped):
    """Training was stopped by Ctrl-C or SIGTERM; what it had finished is kept."""


def state_folder(path: Path) -> Path:
    """Where a run keeps what only itself needs: its resume file and TensorBoard's logs."""
    return path.with_name(f"{path.name}.state")


def first_process() -> bool:
    """Whether this is the first of the processes that train together, or the only one."""
    return not getattr(rank_zero_only, "rank", 0)


def remove_run(path: Path) -> None:
    """Remove a run, with what only itself needs, where there is one."""
    for folder in (path, state_folder(path)):
        if folder.exists():
            shutil.rmtree(folder)


def recipe_data(recipe: Recipe) -> DataSource:
    """A recipe's data set, as it trains on it; errors as in `load_data`."""
    data = load_data(
        recipe.data.name, root=recipe.data.root, img_size=recipe.model.img_size, augment=recipe.data.augment
    )
    return data if recipe.data.held_out else data.joined()


def train(
    recipe: Recipe,
    path: Path | str,
    *,
    resume: bool = False,
    progress: bool = True,
    start: VisionModel | None = None,
    origin: str | None = None,
    data: DataSource | None = None,
) -> Path:
    """Train a recipe into the checkpoint folder `path`, which is whole after every epoch, and return it.

    The first weights are those of `start`, a model of the recipe's shape, or drawn by the recipe's seed; `origin` is
    what the run's card says of them, also where the run is resumed. `data` is the recipe's data set where it is loaded
    already. `progress` prints a line an epoch on stderr, and on a terminal a bar.

    `resume` goes on after the last finished epoch of an interrupted run of the same recipe; on the CPU it ends in
    the same weights as a run without a break. It may go on with other devices if batch_size, devices and accumulate
    still make the same steps an epoch, with other `data.workers` and another `data.root`, and to more epochs. A second
    process is refused while one trains into `path`. Raises FileExistsError if `path` holds something and `resume` is
    off, FileNotFoundError if there is nothing to resume, ValueError if the recipe does not fit the data, the
    device or the interrupted run, and TrainingStopped on Ctrl-C or SIGTERM.
    """
    path = Path(path)
    data = recipe_data(recipe) if data is None else data
    _check(recipe, data)
    first = first_process()  # which has the lock for the processes that it starts
    with quiet_lightning(), locked(path, "wait until it ends, or choose another --name") if first else nullcontext():
        return _train(recipe, path, data, resume, progress, start, origin)


def _train(
    recipe: Recipe,
    path: Path,
    data: DataSource,
    resume: bool,
    progress: bool,
    start: VisionModel | None,
    origin: str | None,
) -> Path:
    """`train`, once the data is there and the run is this process's alone."""
    if not resume and recovered(path).exists():
        raise FileExistsError(f"{path} holds a run; continue it with --resume, or choose another --name")
    if not resume and state_folder(path).exists():
        raise FileExistsError(
            f"{state_folder(path)} is of a run in its first epoch, or of one that did not come through it: remove it "
            "if that run has ended, or choose another --name"
        )
    pl.seed_everything(recipe.seed, workers=True, verbose=False)
    try:
        trainer = _trainer(recipe, path, data, progress, origin)
    except MisconfigurationException as error:
        raise ValueError(f"trainer.accelerator, devices or strategy do not fit this machine: {error}") from error
    if recipe.trainer.cuda_graphs and trainer.strategy.root_device.type != "cuda":
        raise ValueError(
            f"trainer.cuda_graphs needs a CUDA device, got {trainer.strategy.root_device}; set it to false"
        )
    classifier = Classifier(recipe, data)
    _check_length(recipe, classifier, trainer.world_size)
    last = None
    if resume:
        last = resume_file(path, state_folder(path), recipe, classifier.steps_per_epoch(trainer.world_size))
    if start is not None and last is None:
        classifier.model.load_state_dict(start.state_dict())
    try:
        trainer.fit(classifier, ckpt_path=last, weights_only=True)
    except FloatingPointError as error:
        raise ValueError(
            f"training diverged in epoch {trainer.current_epoch} ({error}): lower optim.lr, or raise "
            f"optim.warmup_epochs; what {path} and {state_folder(path)} hold is of the epochs before"
        ) from error
    except SystemExit as stopped:  # how Lightning, and StopTogether, end after either signal
        if not trainer.is_global_zero:
            raise SystemExit(0) from stopped  # Lightning kills the first process where another one fails
        whole = max(resume_files(state_folder(path)), default=0)
        after = "go on with --resume" if whole else f"remove {path} and {state_folder(path)} to start again"
        raise TrainingStopped(f"{path} stopped with {whole} of {recipe.trainer.epochs} epochs: {after}") from stopped
    return path


def _check(recipe: Recipe, data: DataSource) -> None:
    """ValueError where model and data do not fit."""
    for field, expected in (("in_chans", data.in_chans), ("num_classes", len(data.classes))):
        found = getattr(recipe.model, field)
        if found != expected:
            raise ValueError(f"model.{field} must be {expected} for data {data.name!r}, got {found}")


def _check_length(recipe: Recipe, classifier: Classifier, processes: int) -> None:
    """ValueError where an epoch has no batch; a warning where the average of the weights would hardly leave them."""
    if classifier.batches_per_epoch(processes) < 1:
        raise ValueError(
            f"an epoch has no whole batch: data.batch_size is {recipe.data.batch_size} on {processes} processes, "
            f"trainer.limit_batches {recipe.trainer.limit_batches}, and there are {len(classifier.data.train)} "
            "training images; lower the one or raise the other"
        )
    steps, ema = recipe.trainer.epochs * classifier.steps_per_epoch(processes), recipe.optim.ema
    if ema and round(1 / (1 - ema)) > steps:
        rank_zero_warn(
            f"optim.ema {ema} averages over about {1 / (1 - ema):,.0f} steps and the run has {steps}: what is "
            "validated and saved stays near the first weights; lower it"
        )


def _trainer(recipe: Recipe, path: Path, data: DataSource, progress: bool, origin: str | None) -> pl.Trainer:
    """Lightning's Trainer with everything a run keeps."""
    state = state_folder(path)
    callbacks: list[pl.Callback] = [StopTogether(), GumbelHealth()]
    callbacks.append(Checkpointing(path, recipe, data, origin))
    if recipe.trainer.cuda_graphs:
        callbacks.append(CudaGraphs())
    if recipe.optim.ema:
        callbacks.append(MovingAverage(recipe.optim.ema))
    callbacks.append(ResumeFiles(state))
    if progress:
        callbacks.append(EpochLines())
    where = recipe.trainer
    return pl.Trainer(
        max_epochs=where.epochs,
        accelerator=where.accelerator,
        devices=where.devices,
        num_nodes=where.num_nodes,
        strategy=DDPStrategy(gradient_as_bucket_view=True) if where.strategy == "ddp" else where.strategy,
        precision=where.precision,  # type: ignore[arg-type]
        limit_train_batches=where.limit_batches,
        limit_val_batches=where.limit_batches,
        gradient_clip_val=recipe.optim.clip or None,
        accumulate_grad_batches=recipe.optim.accumulate,
        logger=TensorBoardLogger(state, name="", version="tensorboard"),
        callbacks=callbacks,
        plugins=[WholeFiles()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )
