"""What a model loses when heads see position alone, or lose what they know of it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from aft_lens.extraction import AFTReader, AttentionReader
from aft_lens.models import as_model
from aft_lens.statistics import normal_interval, paired_proportions, wilson
from analyses.explain.position import HeadPositions
from analyses.result import Shown, Table

REMOVALS = ("no bias", "no offset", "no keys")
"""What is taken from an AFT head; see `without`."""
Head = tuple[int, int]
"""Layer and head."""
Batches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Outcome(Shown):
    """What a model made of each of the fixed images."""

    right: Bool[np.ndarray, "image"]
    loss: Float[np.ndarray, "image"]
    """Cross entropy in nats."""

    @classmethod
    def of(cls, logits: Float[Tensor, "image classes"], labels: Int[Tensor, "image"]) -> "Outcome":
        """What these logits make of the labels, both on the CPU."""
        loss = F.cross_entropy(logits, labels, reduction="none")
        return cls((logits.argmax(1) == labels).numpy(), loss.double().numpy())

    @classmethod
    def read(cls, row: Any) -> "Outcome":
        """From what a store gives back."""
        return cls(np.array(row["right"], bool), np.array(row["loss"], float))

    @property
    def accuracy(self) -> float:
        """Share of the images that are right."""
        return float(self.right.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy."""
        return wilson(int(self.right.sum()), len(self.right))

    def table(self) -> Table:
        """Accuracy with its interval, and loss."""
        low, high = self.interval
        cells = [f"{100 * self.accuracy:.2f} [{100 * low:.2f}, {100 * high:.2f}]", f"{self.loss.mean():.4f}"]
        return Table(["images", "accuracy, % [95 %]", "loss (nats)"], [[str(len(self.right)), *cells]])


@dataclass(frozen=True)
class Effect(Shown):
    """An edited model beside the intact one on the same images; intervals are 95 % and paired by image."""

    accuracy: float
    change: float
    """Accuracy of the edited model minus that of the intact one."""
    interval: tuple[float, float]
    """Of the change, by Agresti and Min (2005)."""
    loss: float
    """Mean change of the cross entropy, nats; above 0 is worse."""
    loss_interval: tuple[float, float]
    """Mean plus and minus 1.96 standard errors of the images' changes; NaN for one image."""

    @property
    def points(self) -> str:
        """Change of the accuracy in points with its interval, as text."""
        low, high = self.interval
        return f"{100 * self.change:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"

    def table(self) -> Table:
        """Both changes with their intervals."""
        loss = f"{self.loss:+.4f} [{self.loss_interval[0]:+.4f}, {self.loss_interval[1]:+.4f}]"
        columns = ["accuracy, %", "change (points) [95 %]", "change of loss (nats) [95 %]"]
        return Table(columns, [[f"{100 * self.accuracy:.2f}", self.points, loss]])


def compare(intact: Outcome, edited: Outcome) -> Effect:
    """The effect of an edit on the same images; ValueError if they are not as many."""
    if len(intact.right) != len(edited.right):
        raise ValueError(f"outcomes must be of the same images, got {len(intact.right)} and {len(edited.right)}")
    change, loss = edited.accuracy - intact.accuracy, edited.loss - intact.loss
    return Effect(
        edited.accuracy, change, paired_proportions(intact.right, edited.right), float(loss.mean()),
        normal_interval(loss),
    )  # fmt: skip


@torch.no_grad()
def outcome(model: AttentionReader | nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Outcome:
    """Classify fixed images by a model, or the one that a reader reads.

    Raises ValueError if the model's outputs cannot hold their labels.
    """
    reader = model if isinstance(model, AttentionReader) else None
    name = type(model).__name__ if reader is None else reader.source
    run: Any = model if reader is None else reader.logits
    module = as_model(model) if reader is None else reader.model
    device = next(module.parameters()).device
    found, given = [], []
    for images, of in batches:
        logits, labels = run(images.to(device)).float().cpu(), of.cpu()
        if logits.ndim != 2 or logits.shape[1] <= int(labels.max()):
            raise ValueError(
                f"{name} gives {tuple(logits.shape[1:])} outputs, the labels go to {int(labels.max())}; "
                "choose data with its classes, --probe 1000 to fit a linear probe, or --labels model to measure "
                "agreement with the intact model"
            )
        found.append(logits)
        given.append(labels)
    return Outcome.of(torch.cat(found), torch.cat(given))


@torch.no_grad()
def own_labels(reader: AttentionReader, batches: Iterable[tuple[Tensor, Tensor]]) -> Batches:
    """The images with the class that the intact model gives each as label."""
    device = next(reader.model.parameters()).device
    return [(images, reader.logits(images.to(device)).argmax(1).cpu()) for images, _ in batches]


def substituted(
    reader: AttentionReader, positions: HeadPositions, kind: str, chosen: Iterable[Head], window: int
) -> AbstractContextManager[None]:
    """Inside the block the chosen heads mix with `HeadPositions.replaced` matrices, whatever the image."""
    by_layer: dict[int, list[int]] = {}
    for layer, head in chosen:
        by_layer.setdefault(layer, []).append(head)
    matrices = {layer: positions.replaced(kind, layer, window)[heads].float() for layer, heads in by_layer.items()}

    def edit(layer: int, attention: Tensor) -> Tensor:
        if layer not in by_layer:
            return attention
        attention = attention.clone()
        attention[:, by_layer[layer]] = matrices[layer].to(attention)
        return attention

    return reader.edited(edit)


@contextmanager
def without(reader: AFTReader, part: str, chosen: Iterable[Head]) -> Iterator[None]:
    """Inside the block the chosen AFT-conv heads lack a part; the model runs its own operator.

    "no bias": w = 0, its keys alone, pooled over the grid. "no offset": w = 0 at the offset with the largest
    |exp(w) - 1|. "no keys": K = 0, so that w alone weighs the sources. Raises ValueError on another part.
    """
    if part not in REMOVALS:
        raise ValueError(f"part must be one of {REMOVALS}, got {part!r}")

    def removal(head: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def key(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[:, head] = 0
            return output

        def bias(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            output = output.clone(memory_format=torch.contiguous_format)
            place = output[head].view(-1)
            if part == "no bias":
                place.zero_()
            elif place.numel():
                place[place.expm1().abs().argmax()] = 0
            return output

        return key if part == "no keys" else bias

    place = "hook_key" if part == "no keys" else "position_bias"
    with ExitStack() as stack:
        for layer, head in chosen:
            module = reader.layers[layer].get_submodule(place)
            stack.callback(module.register_forward_hook(removal(head)).remove)
        yield
