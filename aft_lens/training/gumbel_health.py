"""Is single-position training (Eq. 10) going to survive its hardening? Measures, a Lightning callback, a warning."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from aft_lens.data import UNCOUNTED
from aft_lens.layers.position_bias import PositionBias
from aft_lens.mode import evaluating

SAFE_GAP = 0.01
"""Accuracy that hardening may cost before a warning: one point."""


class HardeningWarning(UserWarning):
    """Hardening the sampled positions to one will cost accuracy."""


@dataclass(frozen=True)
class PositionHealth:
    """The state of every single-position bias of a model, layers in the model's order."""

    temperature: float
    """tau of Eq. 10, the highest over layers."""
    position: Int[Tensor, "layer head"]
    """Flat index in the window of each head's hard choice."""
    margin: Float[Tensor, "layer head"]
    """Highest minus second highest w: Gumbel noise flips a choice with probability 1 / (1 + e^margin) or more."""
    confidence: Float[Tensor, "layer head"]
    """softmax(w) at the hard choice, the chance that a sample's argmax is the hard choice."""
    duplicates: int
    """Heads whose hard choice another head of the same layer has already."""
    centre_only: int
    """Heads that choose the target itself, and so mix nothing but the pool."""

    def switches(self, before: Int[Tensor, "layer head"]) -> int:
        """Heads whose hard choice differs from `before`."""
        return int((self.position != before).sum())

    def scalars(self) -> dict[str, float]:
        """What goes into a log, by name."""
        return {
            "temperature": self.temperature,
            "margin": float(self.margin.mean()),
            "margin_lowest": float(self.margin.min()),
            "confidence": float(self.confidence.mean()),
            "duplicate_heads": float(self.duplicates),
            "centre_only_heads": float(self.centre_only),
        }


def single_positions(model: nn.Module) -> list[PositionBias]:
    """The single-position biases of a model in its order; empty where it has none."""
    return [module for module in model.modules() if isinstance(module, PositionBias) and module.samples]


@torch.no_grad()
def position_health(model: nn.Module) -> PositionHealth:
    """Margins, confidence, duplicates and centre-only heads of a model's single-position biases.

    Raises ValueError if the model has none.
    """
    biases = single_positions(model)
    if not biases:
        raise ValueError('model must have single-position biases (position_bias="single"), found none')
    w = torch.stack([w.float().flatten(1).cpu() for bias in biases if (w := bias.logits()) is not None])
    best = w.topk(2, dim=-1)
    position = best.indices[..., 0]
    repeated = sum(len(row) - len(row.unique()) for row in position)
    return PositionHealth(
        temperature=max(float(bias.temperature) for bias in biases),
        position=position,
        margin=best.values[..., 0] - best.values[..., 1],
        confidence=w.softmax(-1).amax(-1),
        duplicates=repeated,
        centre_only=int((position == w.shape[-1] // 2).sum()),
    )


@contextmanager
def sampled_positions(model: nn.Module) -> Iterator[None]:
    """Inside, positions are sampled as in training while everything else stays in evaluation mode."""
    with evaluating(model):
        for bias in single_positions(model):
            bias.train()
        yield


@torch.no_grad()
def hardening_gap(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, samples: int = 3, seed: int = 0
) -> tuple[float, float]:
    """Accuracy with sampled positions (mean over `samples` draws) and with hard ones, on the same images.

    The sampling leaves the global random state as it was. Raises ValueError without any image.
    """
    batches = list(batches)
    total = sum(len(labels) for _, labels in batches)
    if not total:
        raise ValueError("batches must hold at least one image, got none")
    device = next(model.parameters()).device

    def accuracy() -> float:
        right = sum(
            int((model(images.to(device)).argmax(1) == labels.to(device)).sum().item()) for images, labels in batches
        )
        return right / total

    with evaluating(model):
        hard = accuracy()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), sampled_positions(model):
        torch.manual_seed(seed)
        soft = sum(accuracy() for _ in range(samples)) / samples
    return soft, hard


class GumbelHealth(pl.Callback):
    """Log the health of single-position biases at every validation, and warn when hardening costs over a point.

    Logged under `gumbel/`: what `PositionHealth.scalars` has, `soft_accuracy`, `hard_accuracy`, `gap` (soft minus
    hard, on up to `batches` validation batches) and `switches` since the last validation. The warning
    (`HardeningWarning`) comes only after `warn_after` of the epochs: before, positions are still moving. A model
    without single-position biases is left alone.
    """

    def __init__(self, *, batches: int = 4, samples: int = 3, warn_after: float = 0.5) -> None:
        super().__init__()
        if batches < 1 or samples < 1:
            raise ValueError(f"batches and samples must be 1 or more, got {batches} and {samples}")
        self.batches = batches
        self.samples = samples
        self.warn_after = warn_after
        self._before: Tensor | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure, log, warn."""
        if trainer.sanity_checking or not single_positions(pl_module):
            return
        health = position_health(pl_module)
        loader = trainer.val_dataloaders
        loader = loader[0] if isinstance(loader, list) else loader
        batches = itertools.islice(loader, self.batches) if loader is not None else []
        counted = [(images[labels != UNCOUNTED], labels[labels != UNCOUNTED]) for images, labels in batches]
        with trainer.precision_plugin.val_step_context():  # 16-bit where validation is
            soft, hard = hardening_gap(pl_module, counted, samples=self.samples)
        scalars = {**health.scalars(), "soft_accuracy": soft, "hard_accuracy": hard, "gap": soft - hard}
        if self._before is not None:
            scalars["switches"] = float(health.switches(self._before))
        self._before = health.position
        pl_module.log_dict({f"gumbel/{name}": value for name, value in scalars.items()}, sync_dist=True)
        epochs = trainer.max_epochs or 0
        if soft - hard > SAFE_GAP and trainer.current_epoch + 1 >= self.warn_after * epochs:
            rank_zero_warn(hardening_message(soft, hard, health), category=HardeningWarning)

    def state_dict(self) -> dict[str, Any]:
        """The last positions, so that a resumed run counts its switches on."""
        return {"before": self._before}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the last positions up again."""
        self._before = state_dict["before"]


def hardening_message(soft: float, hard: float, health: PositionHealth) -> str:
    """What hardening costs, why, and what to try."""
    return (
        f"hardening to one position costs {100 * (soft - hard):.1f} points on validation images (sampled "
        f"{100 * soft:.1f} %, hard {100 * hard:.1f} %); the lowest top-1/top-2 margin is "
        f"{float(health.margin.min()):.2f} at temperature {health.temperature:g}. Train longer, lower the temperature "
        "over the run, or use the straight-through variant (model.straight_through)"
    )
