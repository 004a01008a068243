"""All test images looked through: predictions, what excites each head, means by class, and a map."""

from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA

from aft_lens.data import UNCOUNTED
from aft_lens.errors import InputError, markless
from aft_lens.extraction import AFTReader, watch
from app.back import opened, reads
from app.back.work import Tell, finish

THUMBNAIL = 40
"""Side of a thumbnail, in pixels."""


def survey(tell: Tell, place: str, source: str, revision: str, images: int, projection: str) -> None:
    """Every test image with its prediction, what excites each head, means by class, and a map of all images."""
    held = opened.data_of(source, revision)
    reader = opened.reader(source, revision)
    batches = reads.some(source, revision, "", images)
    names = [f"blocks.{number}.mixer.hook_key" for number in range(len(reader.layers))]
    conv = isinstance(reader, AFTReader)
    thumbnails, chances, labels, peaks, features = [], [], [], [], []
    means: torch.Tensor | None = None
    counts = torch.zeros(len(held.classes))
    for number, (batch, label) in enumerate(batches):
        cache: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            found, logits = _watched(reader, batch, names if conv else [], cache)
        assert logits is not None
        chances.append(logits.softmax(-1).numpy())
        features.append(found.numpy())
        labels.append(label.numpy())
        thumbnails += [_thumbnail(reads.pixels(image, held.mean, held.std)) for image in batch]
        if conv:
            keys = torch.stack([cache[name].float() for name in names], 1)  # image layer head y x
            keys = keys - keys.mean((3, 4), keepdim=True)
            peaks.append(keys.amax((3, 4)).numpy())
            if bool((label != UNCOUNTED).all()) and keys[0].numel() * len(held.classes) < 2**23:
                means = keys.new_zeros(len(held.classes), *keys.shape[1:]) if means is None else means
                means.index_add_(0, label, keys)
                counts += torch.bincount(label, minlength=len(held.classes))
        tell(0.9 * (number + 1) / len(batches), f"{number + 1} of {len(batches)} batches", None)
    content: dict[str, Any] = {
        "thumbnails": np.stack(thumbnails), "probabilities": np.concatenate(chances).astype(np.float32),
        "labels": np.concatenate(labels), "classes": [markless(str(name)) for name in held.classes],
        "places": _projected(np.concatenate(features), projection), "projection": projection, "data": held.name,
    }  # fmt: skip
    if conv:
        content["peaks"] = np.concatenate(peaks)
    if means is not None:
        content["means"] = (means / counts.clamp(min=1).view(-1, 1, 1, 1, 1)).numpy().astype(np.float32)
    finish(tell, place, None, content)


def _watched(reader: Any, batch: torch.Tensor, names: list[str], cache: dict[str, torch.Tensor]) -> Any:
    """Features and logits of a batch, hooks of these names into `cache`."""
    with watch(reader.model, names, cache.__setitem__):
        return reader.read(batch)


def _projected(features: np.ndarray, projection: str) -> np.ndarray:
    """Images in the plane, from what the classifier reads: PCA, or UMAP where it is installed."""
    if projection == "UMAP":
        try:
            from umap import UMAP  # noqa: PLC0415 - optional
        except ImportError as error:
            raise InputError("UMAP is not installed; pip install umap-learn, or choose PCA") from error
        return np.asarray(UMAP(random_state=0).fit_transform(features), np.float32)
    return PCA(min(2, *features.shape), random_state=0).fit_transform(features).astype(np.float32)


def _thumbnail(picture: np.ndarray) -> np.ndarray:
    """A picture as `THUMBNAIL` squared pixels, small ones with their pixels whole."""
    side = np.arange(THUMBNAIL) * np.array(picture.shape[:2])[:, None] // THUMBNAIL
    return picture[side[0]][:, side[1]]
