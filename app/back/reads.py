"""Quick reads: what a page shows at once. Each returns plain values and arrays, and runs in a fork."""

import base64
import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from aft_lens.checkpoint import read_first, read_snapshots
from aft_lens.data import UNCOUNTED, how_read, model_input
from aft_lens.data.batches import batches
from aft_lens.errors import markless
from aft_lens.extraction import AFTReader, AttentionReader, run_with_cache
from aft_lens.extraction.preprocessing import prepare
from analyses.attention import AttentionMaps, attention_maps
from analyses.bias import position_bias_maps
from analyses.maps.head_maps import HeadMaps
from app.back import opened
from app.maps import LEARNED, Looks, numbers_of
from app.uploads import read_image
from app.views.snapshots import bias_by_epoch

SIDE = 224
"""Longest side of a picture that is sent to a browser, in pixels."""


def looks(source: str, revision: str) -> Looks:
    """Position biases of an AFT by layer and head; InputError-like words for a model without any."""
    found = opened.checkpoint(source, revision)
    result = position_bias_maps(found.model, source, read_first(source))
    maps = result.head_maps()
    weights = result.maps + 1.0  # exp(w): what a source weighs against the pool
    numbers = numbers_of(maps, weights if result.targets is None else np.abs(result.maps))
    if result.learned is not None:
        numbers[LEARNED] = 1.0 - np.abs(np.nan_to_num(result.learned.correlation))
    return Looks(maps, numbers, result.learned.words if result.learned else "")


def attention_looks(source: str, revision: str, data: str, images: int) -> Looks:
    """Relative attention of a ViT over test images."""
    return as_looks(relative(source, revision, data, images))


def relative(source: str, revision: str, data: str, images: int) -> AttentionMaps:
    """The result behind `attention_looks`."""
    held = opened.images_for(source, revision, data)
    return attention_maps(opened.reader(source, revision), some(source, revision, data, images), data=held.name)


def some(source: str, revision: str, data: str, images: int, split: str = "test") -> list[tuple[Tensor, Tensor]]:
    """Images and labels of a model's data, as the model takes them, in batches."""
    held = opened.images_for(source, revision, data)
    count = min(images, len(getattr(held, split)))
    if opened.own(source):
        return batches(held, count, split)
    way = opened.reader(source, revision).preprocessing
    assert way is not None  # `images_for` has refused it
    part = prepare(getattr(held, split), way)
    pairs = [part[number] for number in range(count)]
    return [
        (torch.stack([image for image, _ in pairs[start : start + 16]]),
         torch.tensor([int(label) for _, label in pairs[start : start + 16]]))
        for start in range(0, count, 16)
    ]  # fmt: skip


def as_looks(result: AttentionMaps) -> Looks:
    """Maps of averaged attention with the numbers of its heads."""
    maps = result.head_maps()
    words = f"averaged over {result.images} images"
    return Looks(maps, numbers_of(maps, result.maps), words, result.images)


def samples(source: str, revision: str, data: str) -> dict[str, Any]:
    """How many test images there are of a model's data, its classes, and what is to be said of them."""
    held = opened.images_for(source, revision, data)
    kept = f"{held.name} is not here: {held.split}" if held.train is held.test else ""
    return {"count": len(held.test), "name": held.name, "classes": [markless(str(one)) for one in held.classes],
            "note": kept}  # fmt: skip


def image_of(source: str, revision: str, data: str, image: dict[str, Any]) -> tuple[Tensor, np.ndarray, int | None]:
    """The model's input `c y x`, the same as a picture `y x 3` in 0..255, and the true class if it is known.

    `image` is {"sample": number}, or {"upload": bytes, "invert": bool}; words as `read_image` has them.
    """
    truth: int | None = None
    if "upload" in image:
        picture = read_image(image["upload"])
        if opened.own(source):
            record: Any = opened.checkpoint(source, revision).data
            given = model_input(picture, record, invert=bool(image.get("invert")))
            mean, std = record["mean"], record["std"]
        else:
            way = opened.reader(source, revision).preprocessing
            assert way is not None
            given, mean, std = way.transform()(picture.convert("RGB")), way.mean, way.std
    else:
        held = opened.images_for(source, revision, data)
        number = min(int(image["sample"]), len(held.test) - 1)
        if opened.own(source):
            given, label = held.test[number]
            mean, std = held.mean, held.std
        else:
            way = opened.reader(source, revision).preprocessing
            assert way is not None
            given, label = prepare(held.test, way)[number]
            mean, std = way.mean, way.std
        truth = None if int(label) == UNCOUNTED else int(label)
    return given, pixels(given, mean, std), truth


def pixels(image: Tensor, mean: Any, std: Any) -> np.ndarray:
    """A normalised image `c y x` as a picture `y x 3` of bytes."""
    shown = image * torch.tensor(list(std)).view(-1, 1, 1) + torch.tensor(list(mean)).view(-1, 1, 1)
    drawn = (255 * shown.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
    return np.repeat(drawn, 3, 2) if drawn.shape[2] == 1 else drawn


def picture_url(picture: np.ndarray) -> str:
    """A picture as the address of its PNG, small ones as they are, large ones made smaller."""
    image = Image.fromarray(picture)
    if max(image.size) > SIDE:
        image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def upload_words(content: bytes) -> str:
    """How an upload is read, e.g. that it was turned; UploadError in words for one that cannot be."""
    return how_read(read_image(content))


def seen(source: str, revision: str, data: str, image: dict[str, Any]) -> dict[str, Any]:
    """A picture, and what the model says of it."""
    given, picture, truth = image_of(source, revision, data, image)
    with torch.no_grad():
        logits = opened.reader(source, revision).read(given[None])[1]
    chances = None if logits is None else logits[0].softmax(-1).numpy()
    return {"picture": picture_url(picture), "truth": truth, "probabilities": chances}


@torch.no_grad()
def keys(source: str, revision: str, data: str, image: dict[str, Any]) -> Looks:
    """Keys of one image, each head's less their mean (a constant added to K changes nothing)."""
    given, _, _ = image_of(source, revision, data, image)
    reader = _conv(source, revision)
    found = torch.stack(_keys(reader, given)).numpy()
    maps = HeadMaps(found - found.mean((2, 3), keepdims=True), "K − mean", by_offset=False)
    share = np.exp(found - found.max((2, 3), keepdims=True))
    return Looks(maps, numbers_of(maps, share))


def effective(
    source: str, revision: str, data: str, image: dict[str, Any], target: tuple[int, int] | None, part: str
) -> dict[str, Any]:
    """What a target of one image reads, by layer and head: weights that sum to 1 over sources.

    An AFT-conv's are exp(K + w) over their sum (Eq. 3); with `part` "position" its keys are knocked out (K = 0), with
    "content" its biases (w = 0). A ViT's are a row of its attention; `target` None is its class token, and what is left
    of 1 goes to prefix tokens. Shapes `layer head y x`.
    """
    given, picture, truth = image_of(source, revision, data, image)
    reader = opened.reader(source, revision)
    rows, columns = reader.grid
    place = None if target is None else (min(target[0], rows - 1), min(target[1], columns - 1))
    weights = (
        _aft_rows(reader, given, place, part) if isinstance(reader, AFTReader) else _vit_rows(reader, given, place)
    )
    maps = weights.unflatten(-1, (rows, columns)).numpy()
    return {
        "weights": maps, "to_patches": maps.sum((2, 3)), "picture": picture_url(picture), "truth": truth,
        "target": place, "class_token": reader.prefix > 0,
    }  # fmt: skip


def _conv(source: str, revision: str) -> AFTReader:
    found = opened.reader(source, revision)
    if not isinstance(found, AFTReader):
        raise ValueError(f"{source} has no keys of its own to show: it is no AFT-conv; Attention shows what it reads")
    return found


def _keys(reader: AFTReader, image: Tensor) -> list[Tensor]:
    """Keys `h y x` of each layer."""
    names = [f"blocks.{number}.mixer.hook_key" for number in range(len(reader.layers))]
    _, cache = run_with_cache(reader.model, image[None], names)
    return [cache[name][0].float() for name in names]


@torch.no_grad()
def _aft_rows(reader: AttentionReader, image: Tensor, target: tuple[int, int] | None, part: str) -> Tensor:
    """softmax over sources of K + w at one target, `layer head s`."""
    assert isinstance(reader, AFTReader)
    if target is None:
        raise ValueError("an AFT-conv has no class token: its classes are read off the mean over all positions")
    token = target[0] * reader.grid[1] + target[1]
    found = []
    for layer, key in enumerate(_keys(reader, image)):
        w = reader.pairwise(layer)[:, token]
        k = key.flatten(1)
        if part == "position":
            k = torch.zeros_like(k)
        elif part == "content":
            w = torch.where(w.isinf(), w, torch.zeros_like(w))
        found.append((k + w).softmax(-1))
    return torch.stack(found)


@torch.no_grad()
def _vit_rows(reader: AttentionReader, image: Tensor, target: tuple[int, int] | None) -> Tensor:
    """A row of the attention, patches alone, `layer head s`."""
    if target is None and not reader.prefix:
        raise ValueError(f"{reader.source} has no class token; click a patch of the image")
    token = 0 if target is None else reader.prefix + target[0] * reader.grid[1] + target[1]
    rows: dict[int, Tensor] = {}

    def keep(layer: int, weights: Tensor) -> None:
        rows[layer] = weights[0, :, token, reader.prefix :].float()

    with reader.exposed(keep):
        reader.logits(image[None])
    return torch.stack([rows[layer] for layer in range(len(reader.layers))])


def attribution(source: str, revision: str, data: str, image: dict[str, Any]) -> dict[str, Any]:
    """Integrated gradients of the predicted logit from a grey image, `y x`."""
    from analyses.keys import key_maps  # noqa: PLC0415 - brings Captum, which nothing else here needs

    given, _, _ = image_of(source, revision, data, image)
    found = key_maps(opened.checkpoint(source, revision).model, given)
    return {"values": found.attribution, "prediction": found.prediction}


def snapshots(source: str, single: bool) -> dict[int, Looks]:
    """exp(w) − 1 of a run by epoch."""
    kept = bias_by_epoch(read_snapshots(source), source, single=single)
    return {epoch: Looks(maps, {}) for epoch, maps in kept.items()}
