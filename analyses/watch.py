"""Where a model looks, while it trains: a Lightning callback that logs maps as images and what they are as scalars."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from aft_lens.extraction import AttentionReader, ImageBatches, as_reader, relative_attention
from aft_lens.files import write_whole
from aft_lens.models import VisionModel, conv_layers, directions
from analyses.bias import position_bias_maps
from analyses.learned.measure import learned
from analyses.locality.metrics import measure
from analyses.maps import picture
from analyses.maps.head_maps import HeadMaps
from analyses.result import drawn

DPI = 110
COUNT = 16
"""Images of the first batch that attention is averaged over, where none are given."""


@dataclass(frozen=True)
class Seen:
    """Maps of a model at one time, and three numbers of each head."""

    maps: HeadMaps
    distance: Float[np.ndarray, "layer head"]
    """Mean distance from the target in patches, of attention or of |exp(w) - 1|; NaN where w is 0 everywhere."""
    entropy: Float[np.ndarray, "layer head"]
    """Nats: of the averaged attention by offset, or of softmax(w)."""
    learned: Float[np.ndarray, "layer head"]
    """1 - |correlation| of the map with where it started: 0 is the start itself; NaN where either is flat."""

    def scalars(self, name: str) -> dict[str, float]:
        """Means over heads, by layer and over all; what is not a number is left out."""
        found = {}
        for key in ("distance", "entropy", "learned"):
            values = getattr(self, key)
            for layer, row in enumerate(values):
                found[f"{name}/layer{layer}/{key}"] = row
            found[f"{name}/{key}"] = values
        return {key: float(np.nanmean(row)) for key, row in found.items() if not np.isnan(row).all()}


class MapLogger(pl.Callback):
    """Log relative attention of a ViT, or position biases of AFT-conv layers, in any Trainer.

    Every `every` epochs, maps by layer and head go to each of the Trainer's loggers as an image, and their mean
    distance, entropy and how much of them is learned as scalars, by layer and over all. TensorBoard's and those with
    `log_image` (Weights & Biases) get the image; for others it is a file below their folder. `images` are batches that
    attention is averaged over, as the model takes them; if left out, the first ones that are validated, or trained on.
    `model` finds the model in the LightningModule; if left out, it is the first part that can be read. The start is
    kept in Lightning's checkpoints, so that a resumed run knows it. Models are put back as they were, and no random
    number is drawn. Raises ValueError at the start where nothing can be read.
    """

    def __init__(
        self, images: ImageBatches | None = None, *, every: int = 1,
        model: Callable[[pl.LightningModule], nn.Module] | None = None, name: str = "maps",
    ) -> None:  # fmt: skip
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be 1 or more epochs, got {every}")
        self.images, self.every, self.find, self.name = images, every, model, name
        self.first: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Where the maps started."""
        return {"first": self.first}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As the run knew it that goes on."""
        self.first = state_dict["first"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the model, so that a run that nothing can be read of ends before it starts."""
        self._part(pl_module)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take the images, where none were given."""
        self._take(batch)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before the first step, keep where the maps start."""
        if not self.first and trainer.is_global_zero:
            self._take(batch)
            self.first = self._start(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log, every so many epochs."""
        if (trainer.current_epoch + 1) % self.every or not trainer.is_global_zero:
            return
        seen = self.seen(pl_module)
        image = _drawn(seen.maps, f"{self.name}, epoch {trainer.current_epoch}")
        for logger in trainer.loggers:
            logger.log_metrics(seen.scalars(self.name), step=trainer.global_step)
            _log_image(logger, self.name, image, trainer)

    def seen(self, pl_module: pl.LightningModule) -> Seen:
        """The maps as they are now, beside where they started."""
        part = self._part(pl_module)
        if isinstance(part, AttentionReader):
            mean = self._attention(part)
            values = measure(mean)
            flat = mean.shape[-1] * mean.shape[-2] * mean / mean.sum((2, 3), keepdims=True) - 1
            now = {"attention": torch.from_numpy(mean)}
            maps = HeadMaps(flat, "share of attention × offsets − 1")
            return Seen(maps, values["distance"], values["entropy"], _changed(self.first, now))
        with torch.no_grad():
            found = position_bias_maps(part)
        against = learned(part, self.first)
        new = np.full(found.entropy.shape, np.nan) if against is None else 1 - np.abs(against.correlation)
        return Seen(found.head_maps(), found.mean_distance, found.entropy, new)

    def _part(self, pl_module: pl.LightningModule) -> AttentionReader | nn.Module:
        """A reader of a ViT, or a model with AFT-conv layers."""
        for candidate in [self.find(pl_module)] if self.find else _parts(pl_module):
            if conv_layers(candidate):
                return candidate
            try:
                return as_reader(candidate)
            except ValueError:  # another part may be the model
                continue
        raise ValueError(
            f"model must find a ViT of timm, torchvision, transformers or ours, or AFT-conv layers, in "
            f"{type(pl_module).__name__}; give MapLogger(model=lambda module: module.NAME)"
        )

    def _start(self, pl_module: pl.LightningModule) -> dict[str, Tensor]:
        part = self._part(pl_module)
        if isinstance(part, AttentionReader):
            return {"attention": torch.from_numpy(self._attention(part))}
        return directions(part)

    def _attention(self, reader: AttentionReader) -> Float[np.ndarray, "layer head dy dx"]:
        if self.images is None:
            raise ValueError(
                "images must be batches of images b x c x y x x: none were given, and the Trainer's batches do not "
                "start with such; give MapLogger(images)"
            )
        with torch.no_grad():
            return relative_attention(reader, self.images).numpy()

    def _take(self, batch: Any) -> None:
        """Keep the first images of a batch of a loader."""
        images = batch if isinstance(batch, Tensor) else _images(batch)
        if self.images is None and images is not None and images.ndim == 4:
            self.images = images[:COUNT].detach().clone()


def _parts(module: nn.Module) -> list[nn.Module]:
    """A module and what it is made of, models of ours first, then from the outside inwards."""
    found, waiting = [], [module]
    while waiting:
        found.append(waiting.pop(0))
        waiting += found[-1].children()
    return sorted(found, key=lambda part: not isinstance(part, VisionModel))


def _images(batch: Any) -> Tensor | None:
    """The first tensor of images of a tuple, a list or a dictionary; None where there is none."""
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, tuple | list) else ()
    return next((one for one in values if isinstance(one, Tensor) and one.ndim == 4), None)


def _changed(first: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> Float[np.ndarray, "layer head"]:
    """1 - |Pearson correlation| over offsets of attention with where it started; NaN where it is not known."""
    after = now["attention"].flatten(2).double()
    if "attention" not in first or first["attention"].shape != now["attention"].shape:
        return np.full(after.shape[:2], np.nan)
    before = first["attention"].flatten(2).double()
    before, after = (one - one.mean(-1, keepdim=True) for one in (before, after))
    size = (before.square().sum(-1) * after.square().sum(-1)).sqrt()
    return (1 - ((before * after).sum(-1) / size).abs()).where(size > 0, torch.nan).numpy()


def _drawn(maps: HeadMaps, title: str) -> UInt8[np.ndarray, "y x 3"]:
    """The mosaic as pixels."""
    figure = Figure(figsize=picture.size(maps), layout="constrained")
    picture.draw(maps, figure, title)
    return np.asarray(Image.open(io.BytesIO(drawn(figure, "png", dpi=DPI))).convert("RGB"))


def _log_image(logger: Any, name: str, image: UInt8[np.ndarray, "y x 3"], trainer: pl.Trainer) -> None:
    """As the logger takes images; a file below its folder where it takes none."""
    if hasattr(logger, "log_image"):
        logger.log_image(key=name, images=[image], step=trainer.global_step)
    elif hasattr(logger.experiment, "add_image"):
        logger.experiment.add_image(name, image, trainer.global_step, dataformats="HWC")
    else:
        folder = Path(logger.log_dir or logger.save_dir or trainer.default_root_dir)
        content = io.BytesIO()
        Image.fromarray(image).save(content, "PNG")
        write_whole(folder / name / f"epoch-{trainer.current_epoch:04d}.png", content.getvalue())
