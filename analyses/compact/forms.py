"""Compact forms of one ViT, each held to its masked model, with bytes, operations and latency beside the original's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from aft_lens.extraction import AttentionReader
from aft_lens.models import VisionModel
from aft_lens.progress import progress as bar
from aft_lens.statistics import Interval, normal_interval
from analyses.ablate.calibration import Calibration
from analyses.ablate.replacer import Edits, Replacer
from analyses.compact.convert import compact_vit
from analyses.compact.speed import Time, times
from analyses.compact.tune import Tuning, tuned
from analyses.explain.causal import Effect, Outcome, compare
from analyses.pruning.measuring.cost import Batches, operations, tensor_bytes

PARITY = 1e-5
"""Largest error of compact features and logits against masked ones, as a fraction of their largest entry."""


@dataclass(frozen=True)
class Form:
    """One model and what it costs."""

    name: str
    """"original", as its library runs it; "intact", as a model of ours; or what heads are replaced by."""
    bytes: int
    """Of its safetensors file."""
    operations: int
    """Of one image, in matrix products and convolutions."""
    times: tuple[Time, ...]
    parity: float = 0.0
    """Largest error of the features and logits against the masked model's, as a fraction of their largest entry."""
    cosine: float = 1.0
    """Mean over images of the cosine of the features with the intact model's."""
    cosine_interval: Interval = (1.0, 1.0)
    effect: Effect | None = None
    """Of the replacement on accuracy; None without classes, and for what changes nothing."""
    tuned: str = ""
    """"distilled" or "fine-tuned" after the replacement; its parity is then that before."""


class Original(nn.Module):
    """A foreign model that answers as its reader does."""

    def __init__(self, reader: AttentionReader) -> None:
        super().__init__()
        self.model, self.reader = reader.model, reader

    def forward(self, images: Tensor) -> Tensor:
        """Logits, or the library's main output."""
        return self.reader.logits(images)


def forms(
    reader: AttentionReader, plain: VisionModel, calibration: Calibration, edits: Mapping[str, Edits], batches: Batches,
    *, classes: bool, batch_sizes: Sequence[int] = (1, 16), seconds: float = 1.0, seed: int = 0,
    tuning: Tuning | None = None, train: Batches = (), progress: bool = False,
) -> tuple[list[Form], list[VisionModel]]:  # fmt: skip
    """The original, the same as a model of ours, and a compact form for each of `edits` with its model.

    `plain` is `plain_vit` of the reader. With `classes` the labels of `batches` are read. With `tuning` each compact
    form comes again, trained further on `train`, and it is that whose model is given back. Raises ValueError where a
    compact form differs from its masked model by more than `PARITY`.
    """
    device = plain.pos_embed.device
    models = {name: compact_vit(plain, calibration, each, seed=seed) for name, each in edits.items()}
    right, labels = _seen(plain, batches), torch.cat([labels for _, labels in batches])
    found: list[Form] = []
    timed = times(
        {"original": Original(reader), "intact": plain, **models}, batches[0][0].to(device), batch_sizes, seconds
    )
    image = batches[0][0][:1]
    for name in ("original", "intact"):
        found.append(Form(name, tensor_bytes(plain), _operations(plain, image), timed[name]))
    replacer = Replacer(reader, calibration, seed)
    for name, model in models.items():
        features, logits = _seen(model, batches)
        with replacer.replaced(edits[name]):
            masked = [reader.read(images.to(device)) for images, _ in bar(batches, f"masked, {name}")]
        pairs = [(features, torch.cat([one.float().cpu() for one, _ in masked]))]
        if masked[0][1] is not None:
            pairs.append((logits, torch.cat([one.float().cpu() for _, one in masked if one is not None])))
        parity = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        if not parity <= PARITY:
            raise ValueError(f"the compact form by {name} differs from the masked model by {parity:.2g}, more than "
                             f"{PARITY:g}; measure in float32 on the CPU")  # fmt: skip
        kept = _agreed(right, (features, logits), labels, classes)
        found.append(Form(name, tensor_bytes(model), _operations(model, image), timed[name], parity, **kept))
    if tuning is not None:
        for number, (name, model) in enumerate(models.items(), 2):
            models[name] = tuned(model, plain, train, tuning, seed=seed, progress=progress)
            features, logits = _seen(models[name], batches)
            found.append(
                replace(found[number], tuned=tuning.words, **_agreed(right, (features, logits), labels, classes))
            )
    return found, list(models.values())


def _agreed(
    intact: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], labels: Tensor, classes: bool
) -> dict[str, Any]:
    """Of features and logits beside those of the intact model: what a form keeps of it."""
    cosine = F.cosine_similarity(intact[0], other[0]).double().numpy()
    effect = compare(Outcome.of(intact[1], labels), Outcome.of(other[1], labels)) if classes else None
    return {"cosine": float(np.mean(cosine)), "cosine_interval": normal_interval(cosine), "effect": effect}


def _operations(model: VisionModel, image: Tensor) -> int:
    """As `operations`, attention written out: fused on the CPU, it is not counted."""
    with sdpa_kernel(SDPBackend.MATH):
        return operations(model, image)


@torch.no_grad()
def _seen(model: VisionModel, batches: Batches) -> tuple[Tensor, Tensor]:
    """Features and logits of all images, on the CPU."""
    device = model.pos_embed.device
    features = [model.features(images.to(device)) for images, _ in batches]
    return torch.cat(features).cpu(), torch.cat([model.head(one) for one in features]).cpu()
