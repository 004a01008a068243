"""One rung: a model on the ladder and everything that is measured of it."""

import copy
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from aft_lens.models import VisionModel
from aft_lens.statistics import bootstrap_interval, paired_bootstrap
from analyses.pruning.cutting.compact import (
    conv_mixers,
    dense_biases,
    full_masks,
    layer_forms,
    masked_model,
)
from analyses.pruning.cutting.masks import dropped_heads
from analyses.pruning.measuring.cost import (
    Batches,
    Latency,
    latencies_by_device,
    operations,
    predict,
    tensor_bytes,
)

AGREEMENT = 1e-5
"""Largest |logit difference| in float32 between a masked dense model and its compact form, for logits up to 10."""
ROUNDING = 1e-6
"""The same as a share of an image's largest logit, for larger ones: eight roundings of float32."""
GPU_BATCHES = 1
"""Batches of images on which models that live on a GPU are compared on the CPU."""


@dataclass(frozen=True)
class Rung:
    """One model on the ladder and what was measured of it."""

    name: str
    keep: float
    """Offsets kept a head (the mean over heads where the budget is a layer's or the model's)."""
    accuracy: float
    """Share of the images classified right, 0 to 1."""
    max_logit_difference: float | None
    """Parity: max |logit difference| between this compact model and its masked dense form; None for dense models."""
    bytes: int
    """Size of model.safetensors."""
    latency_mean_ms: float
    """A batch of the first batch size on the model's device; NaN where nothing was timed."""
    latency_sd_ms: float
    accuracy_interval: tuple[float, float] = (0.0, 1.0)
    """95 % bootstrap interval over images."""
    difference: float = 0.0
    """Accuracy minus the parent's on the same images."""
    difference_interval: tuple[float, float] = (0.0, 0.0)
    """95 % interval of `difference`, images drawn in pairs."""
    parameters: int = 0
    operations: int = 0
    """Floating-point operations an image in matrix products and convolutions (gathers count none)."""
    form: str = ""
    """What the layers compute, as "convolution x 4"."""
    kept_offsets: int = 0
    dropped_heads: int = 0
    latencies: tuple[Latency, ...] = ()
    criterion: str = ""
    budget: str = ""
    finetune_epochs: int = 0
    logit_change: float | None = None
    """What cutting changed: max |logit difference| to the parent; None for the parent itself."""

    @property
    def latency(self) -> Latency | None:
        """Of the first batch size on the model's own device; None where nothing was timed."""
        return self.latencies[0] if self.latencies else None


@dataclass(frozen=True)
class Contender:
    """A model that waits to be measured, and what its row says of its origin."""

    name: str
    model: VisionModel
    max_logit_difference: float | None = None
    criterion: str = ""
    budget: str = ""
    finetune_epochs: int = 0


def measure_rungs(
    contenders: Sequence[Contender],
    batches: Batches,
    *,
    batch_sizes: Sequence[int] = (64,),
    seconds: float = 0.6,
    seed: int = 0,
) -> list[Rung]:
    """Measure models on the same images and, taking turns, the same clock; the first one is the parent.

    Without any `batch_sizes` nothing is timed.
    """
    models = [contender.model for contender in contenders]
    images = batches[0][0]
    right: list[Any] = []
    changes: list[float | None] = []
    first: Tensor | None = None
    for model in models:
        logits, labels = predict(model, batches)
        right.append((logits.argmax(1) == labels).numpy())
        changes.append(None if first is None else float((logits - first).abs().max()))
        first = logits if first is None else first
    taken = latencies_by_device(models, images, batch_sizes=batch_sizes, seconds=seconds)
    rungs = []
    for place, contender in enumerate(contenders):
        model = contender.model
        change, interval = paired_bootstrap(right[0], right[place])
        used = kept_masks(model)
        times = taken[place]
        count = sum(int(mask.sum()) for mask in used)
        rungs.append(
            Rung(
                name=contender.name,
                keep=count / sum(len(mask) for mask in used),
                accuracy=float(right[place].mean()),
                max_logit_difference=contender.max_logit_difference,
                bytes=tensor_bytes(model),
                latency_mean_ms=times[0].mean_ms if times else math.nan,
                latency_sd_ms=times[0].sd_ms if times else math.nan,
                accuracy_interval=bootstrap_interval(right[place].astype(float), seed=seed),
                difference=change,
                difference_interval=interval,
                parameters=sum(parameter.numel() for parameter in model.parameters()),
                operations=operations(model, images[:1]),
                form=_forms(model),
                kept_offsets=count,
                dropped_heads=len(dropped_heads(used)),
                latencies=times,
                criterion=contender.criterion,
                budget=contender.budget,
                finetune_epochs=contender.finetune_epochs,
                logit_change=changes[place],
            )
        )
    return rungs


def check_agreement(masked: VisionModel, compact: VisionModel, batches: Batches) -> float:
    """max |logit difference| in float32; ValueError if it is above `AGREEMENT` and `ROUNDING` allow.

    Models on a GPU, where products may be rounded to TF32, are compared on the CPU over the first `GPU_BATCHES`.
    """
    if next(compact.parameters()).is_cuda:
        masked, compact = (copy.deepcopy(model).cpu() for model in (masked, compact))
        batches = list(itertools.islice(batches, GPU_BATCHES))
    logits = predict(masked, batches)[0]
    gaps = (logits - predict(compact, batches)[0]).abs().amax(1)
    limits = (ROUNDING * logits.abs().amax(1)).clamp(min=AGREEMENT)
    gap, worst = float(gaps.max()), int((gaps / limits).nan_to_num(torch.inf).argmax())
    if not (math.isfinite(gap) and bool((gaps <= limits).all())):
        raise ValueError(
            f"masked and compact logits must agree to {limits[worst]:.3g}, they differ by {gaps[worst]:.3g}"
        )
    return gap


def check_cut(model: VisionModel, masked: VisionModel, masks: Sequence[Tensor], batches: Batches) -> None:
    """ValueError if the masks cut offsets whose bias is not 0 and yet no logit changes."""
    cuts = any(bool((w[~mask] != 0).any()) for w, mask in zip(dense_biases(model), masks, strict=True))
    if cuts and torch.equal(predict(model, batches)[0], predict(masked, batches)[0]):
        raise ValueError("masks cut offsets whose bias is not 0 and no logit changed; check that w reaches the output")


def masked_twin(compact: VisionModel) -> VisionModel:
    """The dense model with the biases that a compact one has, 0 elsewhere."""
    return masked_model(compact, full_masks(compact))


def kept_masks(model: VisionModel) -> list[Tensor]:
    """Where a model has offsets (`h y x` a layer): the kept ones of `Indexed`, else every bias that is not 0."""
    sides = (model.config.window_size,) * 2
    return [mixer.position_bias.places(sides) for mixer in conv_mixers(model)]


def kept_offsets(model: VisionModel) -> list[list[list[list[int]]]]:
    """Kept offsets (Δy, Δx) by layer and head, for `Indexed` and for any other bias with zeros in it."""
    layers = []
    for mask in kept_masks(model):
        radius = torch.tensor(mask.shape[1:], device=mask.device) // 2
        layers.append([(head.nonzero() - radius).tolist() for head in mask])
    return layers


def _forms(model: VisionModel) -> str:
    """The layers' forms with their counts, in the order they first appear."""
    forms = layer_forms(model)
    return ", ".join(f"{form} x {forms.count(form)}" for form in dict.fromkeys(forms))
