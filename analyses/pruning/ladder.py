"""The ladder: a parent, its masked form and its compact form, each measured on the same images."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from aft_lens.layers.position_bias import Indexed
from aft_lens.models import VisionModel
from analyses.pruning import figures
from analyses.pruning.compact import compact_model, conv_mixers, dense_biases, layer_forms, masked_model
from analyses.pruning.criteria import score
from analyses.pruning.masks import dropped_heads, select
from analyses.pruning.measure import (
    Batches,
    Latency,
    bootstrap,
    latencies,
    operations,
    paired_difference,
    predict,
    tensor_bytes,
)

AGREEMENT = 1e-5
"""Largest |logit difference| in float32 between a masked dense model and its compact form."""


@dataclass(frozen=True)
class Rung:
    """One model on the ladder and what was measured of it."""

    name: str
    keep: float
    """Offsets kept a head (the mean over heads where the budget is a layer's or the model's)."""
    accuracy: float
    """Share of the images classified right, 0 to 1."""
    max_logit_difference: float
    """max |logit difference| to the masked dense model, 0 for dense models themselves."""
    bytes: int
    """Size of model.safetensors."""
    latency_mean_ms: float
    """CPU (or the model's device), the first batch size of `latencies`."""
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


@dataclass(frozen=True)
class PruneLadder:
    """The rungs in order, the last one's model, and where its offsets are."""

    rows: list[Rung]
    model: VisionModel
    """The compact model of the last rung."""
    images: int
    """Images that accuracy was measured on."""
    seed: int = 0

    @property
    def max_logit_difference(self) -> float:
        """The largest difference between a masked and a compact model on any rung."""
        return max(row.max_logit_difference for row in self.rows)

    def offsets(self) -> list[list[list[list[int]]]]:
        """Kept offsets (Δy, Δx) by layer and head of the compact model."""
        return kept_offsets(self.model)

    def record(self) -> dict[str, object]:
        """Everything measured, as plain values for JSON."""
        return {
            "images": self.images,
            "seed": self.seed,
            "max_abs_logit_difference": self.max_logit_difference,
            "rungs": [asdict(row) for row in self.rows],
            "offsets": self.offsets(),
        }

    def table(self) -> str:
        """The rungs as an aligned text table."""
        return figures.table(self.rows)

    def save(self, out: Path) -> list[Path]:
        """Write ladder.json, .csv, .png, .svg and .html into the folder `out` and return their paths."""
        return figures.save_ladder(self.rows, self.record(), Path(out))


def kept_offsets(model: VisionModel) -> list[list[list[list[int]]]]:
    """Kept offsets (Δy, Δx) by layer and head of a model whose biases are `Indexed`; a dense layer has none."""
    layers: list[list[list[list[int]]]] = []
    for mixer in conv_mixers(model):
        bias = mixer.position_bias
        if not isinstance(bias, Indexed):
            layers.append([[] for _ in range(mixer.num_heads)])
            continue
        layers.append([offset[kept].tolist() for offset, kept in zip(bias.offset, bias.kept, strict=True)])
    return layers


def prune_to_indexing(
    model: VisionModel,
    batches: Batches,
    keep: float = 1,
    *,
    criterion: str = "magnitude",
    budget: str = "head",
    calibration: Batches | None = None,
    seed: int = 0,
    batch_sizes: Sequence[int] = (64,),
    seconds: float = 0.6,
) -> PruneLadder:
    """Cut every head to its `keep` best offsets and measure parent, masked dense and compact model.

    `batches` are the fixed test images; `calibration` the ones a measured criterion is computed on (by default
    `batches` themselves: give others for an honest accuracy). The three rows are "parent", "masked" and
    "indexed"; the result's `model` is the compact one, ready for `save_checkpoint`. Raises ValueError if the
    model has no global AFT-conv, if a mask that cuts something changes nothing, or if masked and compact logits
    differ by more than `AGREEMENT`; errors of `score` and `select` as they say.
    """
    scores = score(model, criterion, batches if calibration is None else calibration, seed=seed)
    masks = select(scores, keep, budget)
    return measure_masks(
        model, masks, batches, criterion=criterion, budget=budget, seed=seed, batch_sizes=batch_sizes, seconds=seconds
    )


def measure_masks(
    model: VisionModel,
    masks: Sequence[Tensor],
    batches: Batches,
    *,
    criterion: str = "given",
    budget: str = "given",
    seed: int = 0,
    batch_sizes: Sequence[int] = (64,),
    seconds: float = 0.6,
) -> PruneLadder:
    """Measure parent, masked and compact model for masks already chosen; errors as in `prune_to_indexing`."""
    masked, compact = masked_model(model, masks), compact_model(model, masks)
    models = {"parent": model, "masked": masked, "indexed": compact}
    logits = {name: predict(each, batches) for name, each in models.items()}
    cuts = any(bool((w[~mask] != 0).any()) for w, mask in zip(dense_biases(model), masks, strict=True))
    if cuts and torch.equal(logits["parent"][0], logits["masked"][0]):
        raise ValueError("masks cut offsets whose bias is not 0 and no logit changed; check that w reaches the output")
    gap = float((logits["masked"][0] - logits["indexed"][0]).abs().max())
    if gap > AGREEMENT:
        raise ValueError(f"masked and compact logits must agree to {AGREEMENT:g}, they differ by {gap:.3g}")
    right = {name: (found.argmax(1) == labels).numpy() for name, (found, labels) in logits.items()}
    images = batches[0][0]
    taken = {batch: latencies(list(models.values()), images, batch=batch, seconds=seconds) for batch in batch_sizes}
    rows = []
    for place, (name, each) in enumerate(models.items()):
        change, interval = paired_difference(right["parent"], right[name])
        times = tuple(taken[batch][place] for batch in batch_sizes)
        used = [w != 0 for w in dense_biases(model)] if name == "parent" else masks
        heads = sum(len(mask) for mask in used)
        count = int(sum(mask.sum() for mask in used))
        rows.append(
            Rung(
                name=name,
                keep=count / heads,
                accuracy=float(right[name].mean()),
                max_logit_difference=gap if name == "indexed" else 0.0,
                bytes=tensor_bytes(each),
                latency_mean_ms=times[0].mean_ms,
                latency_sd_ms=times[0].sd_ms,
                accuracy_interval=bootstrap(right[name].astype(float), seed=seed),
                difference=change,
                difference_interval=interval,
                parameters=sum(parameter.numel() for parameter in each.parameters()),
                operations=operations(each, images[:1]),
                form=_forms(each),
                kept_offsets=count,
                dropped_heads=len(dropped_heads(used)),
                latencies=times,
                criterion="" if name == "parent" else criterion,
                budget="" if name == "parent" else budget,
            )
        )
    return PruneLadder(rows, compact, images=len(right["parent"]), seed=seed)


def _forms(model: VisionModel) -> str:
    """The layers' forms with their counts, in the order they first appear."""
    forms = layer_forms(model)
    return ", ".join(f"{form} x {forms.count(form)}" for form in dict.fromkeys(forms))
