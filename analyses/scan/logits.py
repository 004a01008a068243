"""What a scan says of logits: heads that place alone makes look, and images for that kept from the one pass."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from aft_lens.extraction import AFTReader, AttentionReader
from analyses.qk.parts import Parts, split_logits
from analyses.scan.findings import WEAK, Finding

MOST_IMAGES = 256
"""Images, the first ones, whose logits are split: two more passes over them."""


@dataclass
class Kept:
    """Batches that are gone through once, the first of them kept."""

    batches: Iterable[Tensor | Sequence[Any]]
    first: list[Tensor] = field(default_factory=list)

    def __iter__(self) -> Iterator[Tensor | Sequence[Any]]:
        for batch in self.batches:
            images = batch if isinstance(batch, Tensor) else batch[0]
            room = MOST_IMAGES - sum(map(len, self.first))
            if room > 0:
                self.first.append(images[:room])
            yield batch


def logits(reader: AttentionReader, images: Sequence[Tensor], *, progress: bool = False) -> tuple[Parts | None, str]:
    """The parts of the logits, or None and why there are none."""
    if isinstance(reader, AFTReader):
        return None, "an AFT-conv has keys and position biases, no logits of queries and keys"
    try:
        return split_logits(reader, images, progress=progress), ""
    except ValueError as error:  # a library's attention has more in its logits, or there are too few images
        return None, str(error)


def logit_findings(parts: Parts, *, seed: int = 0) -> list[Finding]:
    """Heads whose logits place alone makes: weak ones are left out."""
    share, (lower, upper) = parts.group("position"), parts.intervals("position", seed=seed)
    made = []
    for layer, head in np.ndindex(*share.shape):
        value, low, high = (float(one[layer, head]) for one in (share, lower, upper))
        if not low > WEAK:  # NaN of constant logits neither
            continue
        offsets = float(parts.offsets[layer, head])
        words = (
            f"places alone make {100 * value:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of the variance of head "
            f"{layer}.{head}'s logits, whatever the image; offset explains {100 * offsets:.0f} % of that"
        )
        made.append(Finding("places", int(layer), int(head), value, (low, high), 0.0, min(1.0, low), words))
    return made
