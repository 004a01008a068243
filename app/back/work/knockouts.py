"""What heads and offsets are worth."""

import numpy as np

from analyses.knockout import knock_out
from analyses.knockout.selection import Selection, worth
from app.back import lines, opened, reads
from app.back.work import Tell, check_labels, counted, finish, shown, telling


def knockout(
    tell: Tell, place: str, source: str, revision: str, data: str, images: int, layer: int, head: int | None,
    offset: list[int] | None,
) -> None:  # fmt: skip
    """What a layer, head or offset is worth, beside its controls."""
    held = opened.images_for(source, revision, data)
    chosen = Selection(layer, head, None if offset is None else (offset[0], offset[1]))
    batches = reads.some(source, revision, data, images)
    check_labels(batches, held.name)
    with telling(tell):
        result = worth(opened.reader(source, revision), batches, chosen, source=opened.label(source), data=held.name)
    finish(tell, place, result, shown(result), lines.knockout(source, data, images, layer, head, offset))


def costs(tell: Tell, place: str, source: str, revision: str, images: int) -> None:
    """Accuracy lost without the bias of each head: a knock-out of every edit and of every head."""
    held = counted(source, revision)
    found = opened.checkpoint(source, revision)
    with telling(tell):
        result = knock_out(
            found.model, reads.some(source, revision, "", images), by="head", source=opened.label(source),
            data=held.name, progress=True,
        )  # fmt: skip
    lost = np.zeros((found.config.depth, found.config.num_heads))
    for knock in result.knocks:
        if knock.layer is not None and knock.head is not None:
            lost[knock.layer, knock.head] = -100 * knock.effect.change
    finish(tell, place, result, {**shown(result), "cost": lost}, lines.costs(source, images))
