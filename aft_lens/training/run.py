"""Training a recipe: loaders, Trainer, logs, resuming."""

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from aft_lens.checkpoint import read_config
from aft_lens.data import DataSource, load_data
from aft_lens.data.sequences import SequenceSource, load_sequences
from aft_lens.errors import Stopped
from aft_lens.files import locked, recovered
from aft_lens.models import Model
from aft_lens.training.autoregressor import Autoregressor
from aft_lens.training.checkpointing import Checkpointing
from aft_lens.training.classifier import Classifier
from aft_lens.training.epoch_lines import EpochLines
from aft_lens.training.graphs import CudaGraphs
from aft_lens.training.gumbel_health import GumbelHealth
from aft_lens.training.module import TrainedModule
from aft_lens.training.moving_average import MovingAverage
from aft_lens.training.on_device import settled
from aft_lens.training.quiet import quiet_lightning
from aft_lens.training.recipe import AnyRecipe, DecoderRecipe, Recipe
from aft_lens.training.resuming import ResumeFiles, WholeFiles, began_only, resume_file, resume_files
from aft_lens.training.stopping import StopTogether
from aft_lens.training.waiting import Waiting


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


def recipe_sequences(recipe: DecoderRecipe) -> SequenceSource:
    """A decoder's data, as its recipe trains on it; errors as in `load_sequences`."""
    data = load_sequences(recipe.data.name, root=recipe.data.root, length=recipe.model.length)
    return data if recipe.data.held_out else data.joined()


def train(
    recipe: AnyRecipe,
    path: Path | str,
    *,
    resume: bool = False,
    progress: bool = True,
    start: Model | None = None,
    origin: str | None = None,
    data: DataSource | SequenceSource | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> Path:
    """Train a recipe into the checkpoint folder `path`, which is whole after every epoch, and return it.

    The first weights are those of `start`, a model of the recipe's shape, or drawn by the recipe's seed; `origin` is
    what the run's card says of them, also where the run is resumed. `data` is the recipe's data set where it is loaded
    already. `progress` prints a line an epoch on stderr, and on a terminal a bar. `callbacks` are Lightning's, e.g.
    `aft_lens.MapLogger()`.

    `resume` goes on after the last finished epoch of an interrupted run of the same recipe; on the CPU it ends in
    the same weights as a run without a break. It may go on with other devices if batch_size, devices and accumulate
    still make the same steps an epoch, with other `data.workers` and another `data.root`, and to more epochs. A second
    process is refused while one trains into `path`. Raises FileExistsError if `path` holds something and `resume` is
    off, FileNotFoundError if there is nothing to resume, ValueError if the recipe does not fit the data, the
    device or the interrupted run, and TrainingStopped on Ctrl-C or SIGTERM.
    """
    path = Path(path)
    data = _checked(recipe, data)
    if isinstance(recipe, Recipe) and recipe.data.batch_size == "auto" and resume and recovered(path).exists():
        kept = read_config(path).recipe.get("data", {}).get("batch_size", "auto")  # as it was found for the run
        recipe = replace(recipe, data=replace(recipe.data, batch_size=kept))
    recipe = settled(recipe, data.train)
    first = first_process()  # which has the lock for the processes that it starts
    with quiet_lightning(), locked(path, "wait until it ends, or choose another --name") if first else nullcontext():
        return _train(recipe, path, data, resume, progress, start, origin, callbacks)


def _train(
    recipe: AnyRecipe,
    path: Path,
    data: DataSource | SequenceSource,
    resume: bool,
    progress: bool,
    start: Model | None,
    origin: str | None,
    callbacks: Sequence[pl.Callback],
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
        trainer = _trainer(recipe, path, data, progress, origin, callbacks)
    except MisconfigurationException as error:
        raise ValueError(f"trainer.accelerator, devices or strategy do not fit this machine: {error}") from error
    if recipe.trainer.cuda_graphs and trainer.strategy.root_device.type != "cuda":
        raise ValueError(
            f"trainer.cuda_graphs needs a CUDA device, got {trainer.strategy.root_device}; set it to false"
        )
    module = _module(recipe, data)
    _check_length(recipe, module, len(data.train), trainer.world_size)
    last = None
    if resume and began_only(path, state_folder(path), recipe):
        rank_zero_warn(f"{path} was broken off before its first resume file was written: it begins again")
    elif resume:
        last = resume_file(path, state_folder(path), recipe, module.steps_per_epoch(trainer.world_size))
    if start is not None and last is None:
        module.model.load_state_dict(start.state_dict())
    try:
        trainer.fit(module, ckpt_path=last, weights_only=True)
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


def _checked(recipe: AnyRecipe, data: DataSource | SequenceSource | None) -> DataSource | SequenceSource:
    """The recipe's data, loaded where it is not given; ValueError where model and data do not fit."""
    model = recipe.model
    if isinstance(recipe, Recipe):
        data = recipe_data(recipe) if data is None else data
        assert isinstance(data, DataSource)
        expected = {"in_chans": data.in_chans, "num_classes": len(data.classes)}
    else:
        data = recipe_sequences(recipe) if data is None else data
        assert isinstance(data, SequenceSource)
        expected = {"vocab_size": data.vocab_size, "length": data.length}
    for field, needed in expected.items():
        if getattr(model, field) != needed:
            raise ValueError(f"model.{field} must be {needed} for data {data.name!r}, got {getattr(model, field)}")
    return data


def _module(recipe: AnyRecipe, data: DataSource | SequenceSource) -> TrainedModule:
    """The LightningModule of a recipe."""
    if isinstance(recipe, Recipe):
        assert isinstance(data, DataSource)
        return Classifier(recipe, data)
    assert isinstance(data, SequenceSource)
    return Autoregressor(recipe, data)


def _check_length(recipe: AnyRecipe, module: TrainedModule, count: int, processes: int) -> None:
    """ValueError where an epoch has no batch; a warning where the average of the weights would hardly leave them."""
    if module.batches_per_epoch(processes) < 1:
        raise ValueError(
            f"an epoch has no whole batch: data.batch_size is {recipe.data.batch_size} on {processes} processes, "
            f"trainer.limit_batches {recipe.trainer.limit_batches}, and there are {count} "
            f"training {module.items}; lower the one or raise the other"
        )
    steps, ema = recipe.trainer.epochs * module.steps_per_epoch(processes), recipe.optim.ema
    if ema and round(1 / (1 - ema)) > steps:
        rank_zero_warn(
            f"optim.ema {ema} averages over about {1 / (1 - ema):,.0f} steps and the run has {steps}: what is "
            "validated and saved stays near the first weights; lower it"
        )


def _trainer(
    recipe: AnyRecipe, path: Path, data: DataSource | SequenceSource, progress: bool, origin: str | None,
    own: Sequence[pl.Callback],
) -> pl.Trainer:  # fmt: skip
    """Lightning's Trainer with everything a run keeps."""
    state = state_folder(path)
    callbacks: list[pl.Callback] = [StopTogether(), GumbelHealth(), Waiting(), *own]
    callbacks.append(Checkpointing(path, recipe, data, origin))
    if recipe.trainer.cuda_graphs:
        callbacks.append(CudaGraphs())
    if recipe.optim.ema:
        callbacks.append(MovingAverage(recipe.optim.ema))
    callbacks.append(ResumeFiles(state, recipe))
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
