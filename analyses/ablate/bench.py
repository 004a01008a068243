"""Where replaced models are measured: a reader, what replaces its heads, fixed images, and what the intact model says.

Passes start at the first layer that is replaced: what enters it is kept.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from aft_lens.extraction import AttentionReader, can_resume, entering, resumed
from analyses.ablate.agreement import agreement
from analyses.ablate.calibration import Calibration
from analyses.ablate.replacer import Edits, Replacer
from analyses.explain.causal import Effect, Outcome, compare

KEPT_BYTES = 2**30
"""Of hidden states that are kept between passes."""
Batches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Seen:
    """What a model made of fixed images."""

    features: Float[Tensor, "image d"]
    outcome: Outcome | None
    """None without classes."""


@dataclass(frozen=True)
class Row:
    """A replaced model on fixed images; plain values, as a store keeps them."""

    agreement: dict[str, Any]
    right: str = ""
    """A 1 for each image that is classified as its label says; empty without classes."""
    loss: tuple[float, ...] = ()
    """Cross entropy of each image, nats."""
    cosines: tuple[float, ...] = ()
    """Of each image's features with the intact model's, without classes."""

    @classmethod
    def of(cls, intact: Seen, found: Seen) -> "Row":
        """From what was measured."""
        agreed = agreement(intact.features, found.features).record()
        if found.outcome is None:
            return cls(agreed, cosines=_few_digits(F.cosine_similarity(intact.features, found.features)))
        right = "".join("1" if one else "0" for one in found.outcome.right)
        return cls(agreed, right, _few_digits(found.outcome.loss))

    @classmethod
    def read(cls, row: Any) -> "Row":
        """From what a store gives back."""
        return cls(row["agreement"], row["right"], tuple(row["loss"]), tuple(row["cosines"]))

    def outcome(self) -> Outcome:
        """Which images are right, and their losses; ValueError without classes."""
        if not self.right:
            raise ValueError("the row has no classes; it was measured by agreement of features alone")
        return Outcome(np.array([one == "1" for one in self.right]), np.array(self.loss))

    def effect(self, intact: "Row") -> Effect:
        """Beside the intact model on the same images, paired."""
        return compare(intact.outcome(), self.outcome())

    @property
    def damage(self) -> float:
        """What orders rank by: the loss, or without classes 1 less the cosine of the features."""
        return float(np.mean(self.loss)) if self.loss else 1 - float(self.agreement["cosine"])


class Bench:
    """Measures replaced models on one list of labelled or unlabelled batches; `classes` False leaves labels unread."""

    def __init__(
        self, reader: AttentionReader, calibration: Calibration, batches: Iterable[Any], *, classes: bool,
        own_labels: bool = False, bfloat16: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        self.reader, self.bfloat16, self.classes, self.own_labels = reader, bfloat16, classes, own_labels
        self.replacer = Replacer(reader, calibration, seed)
        self.batches: Batches = [(batch[0], batch[1]) for batch in batches]
        if not self.batches:
            raise ValueError("batches must hold at least one image, got none")
        self.device = next(reader.model.parameters()).device
        self._hidden: OrderedDict[Any, list[Tensor]] = OrderedDict()
        with self._precision():
            self.resumes = can_resume(reader, self.batches[0][0][:2].to(self.device))
        self.labels = [labels for _, labels in self.batches]
        features, logits = self._pass({})
        if own_labels:
            assert logits is not None
            self.labels = list(logits.argmax(1).split([len(labels) for labels in self.labels]))
        self.intact = Seen(features, self._outcome(logits))

    def row(self, edits: Edits, start: int | None = None) -> Row:
        """Measure the model with heads replaced.

        What enters layer `start` (the first that is edited if None) is kept for other edits that have those of the
        layers before it in common.
        """
        features, logits = self._pass(edits, start)
        return Row.of(self.intact, Seen(features, self._outcome(logits)))

    def _outcome(self, logits: Tensor | None) -> Outcome | None:
        if not self.classes:
            return None
        labels = torch.cat(self.labels)
        if logits is None or logits.ndim != 2 or logits.shape[1] <= int(labels.max()):
            shape = "no" if logits is None else str(logits.shape[-1])
            raise ValueError(
                f"{self.reader.source} gives {shape} class logits, the labels go to {int(labels.max())}; give --probe "
                "1000 to fit a linear probe, --labels model for agreement with the intact model's classes, or --labels "
                "none for agreement of its features alone"
            )
        return Outcome.of(logits, labels)

    @torch.no_grad()
    def _pass(self, edits: Edits, start: int | None = None) -> tuple[Tensor, Tensor | None]:
        """Features and logits of all images, on the CPU."""
        if start is None:
            start = min((layer for layer, _ in edits), default=0)
        resume = start if self.resumes else 0
        hidden = self._entering({head: rung for head, rung in edits.items() if head[0] < resume}, resume)
        features, logits, first = [], [], 0
        for number, (images, _) in enumerate(self.batches):
            with ExitStack() as stack:
                stack.enter_context(self._precision())
                if resume:
                    stack.enter_context(resumed(self.reader, resume, hidden[number]))
                if edits:
                    stack.enter_context(self.replacer.replaced(edits, first))
                seen, given = self.reader.read(images.to(self.device))
            features.append(seen.float().cpu())
            logits.append(None if given is None else given.float().cpu())
            first += len(images)
        whole = [one for one in logits if one is not None]
        return torch.cat(features), torch.cat(whole) if len(whole) == len(logits) else None

    def _entering(self, before: Edits, layer: int) -> list[Tensor]:
        """What enters a layer, by batch, where heads before it are replaced; [] for layer 0."""
        if layer == 0:
            return []
        key = layer, tuple(sorted(before.items()))
        if key in self._hidden:
            self._hidden.move_to_end(key)
            return self._hidden[key]
        earlier = {head: rung for head, rung in before.items() if head[0] < layer - 1}
        below = self._hidden.get((layer - 1, tuple(sorted(earlier.items()))), [])
        found, first = [], 0
        for number, (images, _) in enumerate(self.batches):
            with ExitStack() as stack:
                stack.enter_context(self._precision())
                if below:
                    stack.enter_context(resumed(self.reader, layer - 1, below[number]))
                if before:
                    stack.enter_context(self.replacer.replaced(before, first))
                found.append(self._until(layer, images.to(self.device)))
            first += len(images)
        self._hidden[key] = found
        while len(self._hidden) > 1 and self._bytes() > KEPT_BYTES:
            self._hidden.popitem(last=False)
        return found

    def _until(self, layer: int, images: Tensor) -> Tensor:
        """What enters a layer; the pass ends there."""
        seen: list[Tensor] = []

        def sink(number: int, hidden: Tensor) -> None:
            if number == layer:
                seen.append(hidden)
                raise _Reached

        try:
            with entering(self.reader, sink):
                self.reader.logits(images)
        except _Reached:
            pass
        return seen[0]

    def _bytes(self) -> int:
        return sum(one.nbytes for batches in self._hidden.values() for one in batches)

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16)


def _few_digits(values: Iterable[Any]) -> tuple[float, ...]:
    """Six significant ones, which is what a store needs."""
    return tuple(float(f"{float(value):.6g}") for value in values)


class _Reached(Exception):
    """The layer that a pass was for."""
