"""Key feature maps of one image by layer and head (Fig. 9-12), beside an attribution of the prediction."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from captum.attr import IntegratedGradients
from jaxtyping import Float
from jsonargparse import auto_cli
from torch import Tensor

from aft_lens.checkpoint import Checkpoint, load_checkpoint
from aft_lens.data import eval_transform, load_data, read_image
from aft_lens.extraction import run_with_cache
from aft_lens.models import VisionModel
from analyses.figures import report_folder, rounded, save_mosaic, table

STEPS = 32
"""Steps of the integral in integrated gradients."""


@dataclass(frozen=True)
class KeyMaps:
    """Where an image's keys are high, and which pixels its prediction rests on."""

    maps: Float[np.ndarray, "layer head y x"]
    """Keys K: a source's weight in every target's mean is exp(K) times exp of its bias."""
    image: Float[np.ndarray, "c y x"]
    """The normalised image."""
    prediction: int
    """Index of the most probable class."""
    probabilities: Float[np.ndarray, "n"]
    attribution: Float[np.ndarray, "y x"]
    """Integrated gradients of the predicted logit from a grey image, summed over channels."""

    def save(self, out: Path) -> list[Path]:
        """Write keys.* and attribution.* (JSON, PNG, SVG, HTML) into a folder and return their paths."""
        record = {"prediction": self.prediction, "probabilities": rounded(self.probabilities)}
        centred = self.maps - self.maps.mean((2, 3), keepdims=True)
        paths = save_mosaic(
            centred, out, "keys", title="Key feature maps", unit="K − mean K", record=record, centred=False
        )
        return paths + save_mosaic(
            self.attribution[None, None], out, "attribution", title=f"Attribution of class {self.prediction}",
            unit="logit", record=record, column="class", centred=False,
        )  # fmt: skip


def key_maps(model: VisionModel, image: Float[Tensor, "c y x"]) -> KeyMaps:
    """Read the keys of one normalised image and attribute its prediction by integrated gradients (Captum).

    Raises ValueError for a model that is no AFT-conv, and on an image of the wrong shape.
    """
    if model.config.traits.weights != "offset":
        raise ValueError(
            f"model mixes with {model.config.mixer}, whose keys are no maps by head; key maps need an AFT-conv"
        )
    if image.ndim != 3 or image.shape[0] != model.config.in_chans:
        raise ValueError(f"image must be {model.config.in_chans} x rows x columns, got {tuple(image.shape)}")
    was_training = model.training
    model.eval()
    try:
        batch = image.unsqueeze(0).to(next(model.parameters()).device)
        names = [f"blocks.{i}.mixer.hook_key" for i in range(len(model.blocks))]
        with torch.no_grad():
            logits, cache = run_with_cache(model, batch, names)
        probabilities = logits[0].softmax(-1)
        prediction = int(probabilities.argmax())
        gradients = IntegratedGradients(model)
        attribution = gradients.attribute(batch, target=prediction, n_steps=STEPS, internal_batch_size=STEPS)
    finally:
        model.train(was_training)
    return KeyMaps(
        torch.stack([cache[name][0] for name in names]).float().cpu().numpy(),
        image.cpu().numpy(),
        prediction,
        probabilities.cpu().numpy(),
        attribution[0].sum(0).detach().float().cpu().numpy(),
    )


def command(checkpoint: Path, image: Path | None = None, sample: int | None = None, out: Path | None = None) -> None:
    """Print where each layer's keys peak, and save the key maps and the attribution.

    Args:
        checkpoint: A folder with an AFT-conv checkpoint.
        image: An image file; a test image of the checkpoint's data if left out.
        sample: Number of that test image; the first if left out.
        out: Folder for the files; reports/NAME if left out.
    """
    if image is not None and sample is not None:
        raise ValueError(f"image and sample exclude each other, got {image} and {sample}; give one of them")
    loaded = load_checkpoint(checkpoint)
    result = key_maps(loaded.model, _sample(loaded, sample or 0) if image is None else _file(loaded, image))
    classes = loaded.data["classes"]
    print(f"{checkpoint}: {classes[result.prediction]} ({100 * result.probabilities[result.prediction]:.1f} %)")
    rows = []
    for layer, maps in enumerate(result.maps):
        share = np.exp(maps - maps.max((1, 2), keepdims=True)).reshape(len(maps), -1)
        share /= share.sum(1, keepdims=True)
        entropy = -(share * np.log(np.maximum(share, 1e-30))).sum(1)
        rows.append(
            [str(layer), f"{maps.std((1, 2)).mean():.3f}", f"{np.exp(entropy).mean():.1f}", str(share.shape[1])]
        )
    print(table(["layer", "spread of K", "effective sources", "of positions"], rows))
    for path in result.save(out or report_folder(checkpoint)):
        print(f"wrote {path}")


def _sample(loaded: Checkpoint, number: int) -> Tensor:
    """A test image of the checkpoint's data."""
    test = load_data(loaded.data["name"], img_size=loaded.data["img_size"]).test
    count = len(test)
    if not 0 <= number < count:
        raise ValueError(f"sample must be from 0 to {count - 1}, got {number}")
    return test[number][0]


def _file(loaded: Checkpoint, path: Path) -> Tensor:
    """An image file as the model takes it."""
    picture = read_image(str(path)).convert("L" if loaded.config.in_chans == 1 else "RGB")
    return eval_transform(loaded.data["img_size"], loaded.data["mean"], loaded.data["std"])(picture)


if __name__ == "__main__":
    auto_cli(command)
