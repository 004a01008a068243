"""The resume file of a run: written whole where it stays, read back without unpickling, told from what it is not."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_warn

from aft_lens.checkpoint import read_config, read_metrics, weight_differences
from aft_lens.errors import InputError
from aft_lens.files import recovered, whole_file
from aft_lens.models import build_model
from aft_lens.training.module import TrainedModule
from aft_lens.training.recipe import AnyRecipe

KEPT = 2
"""Resume files that stay: the last epoch's, and the one before for the day that the last is damaged."""
PLACEMENT = (
    *(f"trainer.{key}" for key in ("accelerator", "devices", "num_nodes", "strategy")),
    *(f"data.{key}" for key in ("batch_size", "workers", "root", "bad_files")),
    "optim.accumulate",
    "trainer.cuda_graphs",
    "trainer.save_steps",
    "model.name",
)
"""What may change when a run goes on: where it trains, how its steps are dealt to devices, what its model is called."""
PARTS = ("epoch", "global_step", "state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks")
"""What a resume file of ours has."""


class WholeFiles(TorchCheckpointIO):
    """Writes resume files in the folder where they stay: Lightning's own pass through the system's temporary folder,
    from where another file system's are copied, and a kill cuts the copy off."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Replace the file at once, or leave it as it was."""
        with whole_file(path) as file:
            torch.save(checkpoint, file)


class ResumeFiles(Checkpoint):
    """Keep the state of the last `KEPT` epochs that are whole, and within an epoch that of every `save_steps` steps.

    Within an epoch a file has the random states of all processes too: who goes on from it with as many draws what an
    unbroken run draws. With another number of processes the images are those of the unbroken run, and what is random
    beside them is drawn anew.
    """

    def __init__(self, state: Path, recipe: AnyRecipe) -> None:
        super().__init__()
        self.state, self.recipe, self.steps = state, recipe, 0
        self.random: list[dict[str, torch.Tensor]] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Count the steps of an epoch."""
        assert isinstance(pl_module, TrainedModule)
        self.steps = pl_module.steps_per_epoch(trainer.world_size)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Within an epoch that was broken off: take up its random states, before its next batch is made."""
        if len(self.random) == trainer.world_size:
            set_random(self.random[trainer.global_rank])
        self.random = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the file of this step, if it is its turn, and remove the one before."""
        every = self.recipe.trainer.save_steps * self.recipe.optim.accumulate
        if not every or (batch_idx + 1) % every or batch_idx + 1 >= trainer.num_training_batches:
            return
        own: dict[str, torch.Tensor] = get_random(pl_module.device)
        self.random = [own] * trainer.world_size
        if trainer.world_size > 1:
            dist.all_gather_object(self.random, own)
        path = self.state / f"epoch={trainer.current_epoch}-batch={batch_idx + 1}.ckpt"
        trainer.save_checkpoint(path)
        self.random = []
        if trainer.is_global_zero:
            for before in part_files(self.state):
                if before != path:
                    before.unlink(missing_ok=True)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write this epoch's, then remove what is older than `KEPT`, of a part of an epoch or was left unfinished."""
        trainer.save_checkpoint(self.state / f"epoch={trainer.current_epoch}.ckpt")
        if trainer.is_global_zero:
            files = resume_files(self.state)
            for epochs in sorted(files)[:-KEPT]:
                files[epochs].unlink(missing_ok=True)
            for part in (*part_files(self.state), *self.state.glob(".*.writing")):
                part.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """Random states of the processes, where the file is of a part of an epoch, and what its run was to do."""
        recipe = json.dumps(asdict(self.recipe))
        return {
            "random": self.random,
            "steps": self.steps,
            "accumulate": self.recipe.optim.accumulate,
            "recipe": recipe,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the random states up again."""
        self.random = state_dict.get("random", [])


def get_random(device: torch.device) -> dict[str, torch.Tensor]:
    """PyTorch's random states on the CPU and, if it is a GPU, on the device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random(states: Mapping[str, torch.Tensor]) -> None:
    """Set what `get_random` got, as far as there is such a device."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def part_files(state: Path) -> list[Path]:
    """Resume files of a part of an epoch in a run's state folder, of the longest run first."""
    files = list(state.glob("epoch=*-batch=*.ckpt"))
    return sorted(files, key=lambda file: [int(word.partition("=")[2]) for word in file.stem.split("-")], reverse=True)


def resume_files(state: Path) -> dict[int, Path]:
    """Resume files in a run's state folder by the number of whole epochs in them."""
    found = {file.stem.partition("=")[2]: file for file in state.glob("epoch=*.ckpt")}
    return {int(number) + 1: file for number, file in found.items() if number.isdecimal()}


def resume_file(path: Path, state: Path, recipe: AnyRecipe, steps: int) -> Path:
    """The newest resume file of a run of this recipe that is whole; `steps` is what an epoch will have.

    Raises FileNotFoundError if there is none, and InputError if none can be read, or they are of another recipe or
    pace. A warning names each that is passed over.
    """
    whole = resume_files(state)
    files = [whole[epochs] for epochs in sorted(whole, reverse=True)]
    parts = part_files(state)
    if not files and not parts:
        raise FileNotFoundError(_without_state(path, state))
    if recovered(path).exists() or files:
        _check_recipe(path, read_config(path).recipe, recipe)
    expected = build_model(recipe.model).state_dict()
    damaged: list[str] = []
    for file in [*parts, *files]:  # a part that is there is of the epoch that goes on
        try:
            found = _read(file, expected, part=file in parts)
        except InputError as error:
            damaged.append(str(error))
            continue
        for words in damaged:
            rank_zero_warn(f"{words}; going on after epoch {found['epoch'] + (file not in parts)} from {file}")
        own = found["callbacks"].get("ResumeFiles", {})
        before = own.get("steps", found["global_step"] // (found["epoch"] + 1))
        if before != steps:
            raise InputError(
                f"the run took {before} steps an epoch and would go on with {steps}; keep data.batch_size x devices x "
                "optim.accumulate as it was"
            )
        if file in parts:
            _check_recipe(path, json.loads(own["recipe"]), recipe)
            if own["accumulate"] != recipe.optim.accumulate:
                raise InputError(
                    f"{file} is within an epoch of optim.accumulate {own['accumulate']}; keep it, or remove that file "
                    "to go on from the epoch before"
                )
        return file
    raise InputError(
        "; ".join(damaged) + f"; copy it again from where the run was, remove {path} and {state} to start again, or "
        f"train on from the weights with --start {path} and another --name"
    )


def began_only(path: Path, state: Path, recipe: AnyRecipe) -> bool:
    """Whether a run was broken off between its first checkpoint and its first resume file, so that it begins again.

    A run with a start of its own is none: its first weights are not here. Raises InputError if it is of another recipe.
    """
    if resume_files(state) or part_files(state) or not state.is_dir() or not recovered(path).exists():
        return False
    _check_recipe(path, read_config(path).recipe, recipe)
    return len(read_metrics(path)) == 1 and read_config(path).start is None


def _read(file: Path, expected: Mapping[str, Any], *, part: bool) -> dict[str, Any]:
    """What a resume file holds; InputError if it is cut off, empty, pickled code, or another library's or model's, or
    if it is of a part of an epoch and does not say what its run was to do."""
    try:
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a damaged archive makes PyTorch raise nearly anything
        said = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise InputError(f"resume file {file} cannot be read ({said[:160]})") from error
    missing = [part for part in PARTS if not isinstance(found, dict) or part not in found]
    if missing:
        raise InputError(f"resume file {file} is not of this program: it has no {', '.join(missing)}")
    state = found["state_dict"]
    if not isinstance(state, dict) or not isinstance(found["callbacks"], dict):
        raise InputError(f"resume file {file} is not of this program: its states have no names")
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    own = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    wrong = weight_differences(expected, own)
    if wrong:
        raise InputError(f"resume file {file} is of another model ({wrong[0]}; {len(wrong)} differences)")
    if not isinstance(found["epoch"], int) or not isinstance(found["global_step"], int):
        raise InputError(f"resume file {file} does not count its epochs and steps")
    own = found["callbacks"].get("ResumeFiles", {})  # files of the first versions have none
    if not isinstance(own, dict) or (part and not _describes_part(own)):
        raise InputError(f"resume file {file} does not say what its run was to do and where it was within the epoch")
    return found


def _describes_part(own: Mapping[str, Any]) -> bool:
    """Whether the state of `ResumeFiles` has what going on within an epoch needs."""
    try:
        recipe = json.loads(own["recipe"])
        states = [each["cpu"] for each in own["random"]]
    except (KeyError, TypeError, ValueError, RecursionError):
        return False
    counted = isinstance(own.get("accumulate"), int) and isinstance(own.get("steps"), int)
    return isinstance(recipe, dict) and counted and all(isinstance(state, torch.Tensor) for state in states)


def _without_state(path: Path, state: Path) -> str:
    """What is said of a run without resume files."""
    if not recovered(path).exists():
        return (
            f"{path} has no run to resume: no epoch was whole; remove {state} where it exists, and start without "
            "--resume"
        )
    return (
        f"{path} has {len(read_metrics(path))} whole epochs, but its resume files are not in {state}, where a run "
        f"keeps them: move that folder back, train on from its weights with --start {path} and another --name, or "
        f"remove {path} and start without --resume"
    )


def _check_recipe(path: Path, before: Mapping[str, Any], recipe: AnyRecipe) -> None:
    """InputError where a run was trained by another recipe (`before`), but for what may change."""
    kept = _values(before)
    asked = _values(asdict(recipe))
    different = [key for key, value in asked.items() if kept.get(key) != value]
    if "trainer.epochs" in different and isinstance(kept.get("trainer.epochs"), int):
        if kept["trainer.epochs"] > asked["trainer.epochs"]:
            raise InputError(
                f"{path} was to have {kept['trainer.epochs']} epochs, trainer.epochs asks for "
                f"{asked['trainer.epochs']}; ask for as many or more"
            )
        different.remove("trainer.epochs")
        rank_zero_warn(
            f"{path} goes on to {asked['trainer.epochs']} epochs in place of {kept['trainer.epochs']}: its schedules "
            "are from here on those of the longer run, whose weights a run without a break would not have"
        )
    if different:
        raise InputError(f"{path} was trained with other values of {', '.join(different)}; resume with the same recipe")


def _values(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Every value by its dotted name but those that may change between a run and its continuation."""
    plain = json.loads(json.dumps(recipe))
    flat = {
        f"{section}.{key}": value
        for section, fields in plain.items()
        if isinstance(fields, dict)
        for key, value in fields.items()
    }
    flat["seed"] = plain.get("seed")
    return {key: value for key, value in flat.items() if key not in PLACEMENT}
