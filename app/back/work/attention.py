"""Averaged attention, which grows image by image, and files of maps."""

from dataclasses import replace
from typing import Any

from aft_lens.checkpoint import read_first, taken_as
from analyses.attend import attend as attended
from analyses.attention import attention_maps
from analyses.bias import position_bias_maps
from analyses.keys import key_maps
from analyses.result import plain
from app.back import lines, opened, reads
from app.back.work import Tell, finish, shown, telling

FIRST = (8, 64)
"""Images after which averaged attention is shown, before all have been gone through."""


def attention(tell: Tell, place: str, source: str, revision: str, data: str, images: int) -> None:
    """Relative attention of a ViT; a first look after a few images."""
    held = opened.images_for(source, revision, data)
    reader = opened.reader(source, revision)
    batches = reads.some(source, revision, data, images)
    for first in FIRST:
        if first < images:
            few = [(part[:first], labels[:first]) for part, labels in batches[:1]]
            result = attention_maps(reader, few, data=held.name)
            tell(first / images / 2, f"{result.images} of {images} images", {"looks": _as_content(result)})
    with telling(tell, 0.1):
        result = attention_maps(reader, batches, data=held.name, progress=True)
    content = {"looks": _as_content(result), **shown(result)}
    finish(tell, place, replace(result, source=source), content, lines.attention(source, data, images))


def _as_content(result: Any) -> dict[str, Any]:
    """Averaged attention as the page rebuilds it."""
    return {
        "maps": result.maps, "images": result.images, "distance": result.mean_distance, "grid": list(result.grid),
        "uniform_distance": result.uniform_distance,
    }  # fmt: skip


def attend(
    tell: Tell, place: str, source: str, revision: str, data: str, image: dict[str, Any], target: list[int] | None
) -> None:
    """Files of what a target of an image reads, and the rollout through the layers."""
    given, _, _ = reads.image_of(source, revision, data, image)
    tell(0.3, "reading", None)
    result = attended(opened.reader(source, revision), given, None if target is None else (target[0], target[1]))
    finish(tell, place, result, {"record": plain(result.record())}, lines.attend(source, data, image, target))


def bias(tell: Tell, place: str, source: str, revision: str) -> None:
    """Files of position-bias maps."""
    result = position_bias_maps(opened.checkpoint(source, revision).model, source, read_first(source))
    finish(tell, place, result, {"record": plain(result.record())}, lines.bias(source))


def keys(tell: Tell, place: str, source: str, revision: str, image: dict[str, Any]) -> None:
    """Files of an image's keys, and of the attribution beside them."""
    given, _, _ = reads.image_of(source, revision, "", image)
    tell(0.2, "reading keys and attributing the prediction", None)
    result = key_maps(opened.checkpoint(source, revision).model, given)
    result = replace(result, source=taken_as(source), classes=[*opened.checkpoint(source, revision).data["classes"]])
    finish(tell, place, result, {"record": plain(result.record())}, lines.keys(source, image))
