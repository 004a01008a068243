"""Key feature maps of one image by layer and head (Fig. 9-12), beside an attribution of the prediction."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from matplotlib.figure import Figure, SubFigure
from torch import Tensor, nn

from aft_lens.checkpoint import Checkpoint, load_checkpoint
from aft_lens.data import batches, load_data, model_input
from aft_lens.extraction import run_with_cache
from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.mode import evaluating
from aft_lens.models import VisionModel, as_model
from analyses.attribution import Checked, check_attributions, draw_check
from analyses.attribution.checks import Check
from analyses.attribution.methods import integrated_gradients
from analyses.command import report, report_folder, run_module
from analyses.image_file import image_file
from analyses.maps import pixels
from analyses.maps.head_maps import HeadMaps
from analyses.maps.picture import COLOURS
from analyses.maps.result import MapResult
from analyses.result import Result, Table

CHECKED = 8
"""Images that an attribution is checked on."""
SMALL = 64
"""Side of the images of a model, in pixels, whose attributions are checked unasked."""


@dataclass(frozen=True)
class KeyMaps(MapResult):
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
    source: str = "model"
    """What was read."""
    classes: Sequence[str] = ()
    """Names of the classes, where they are known."""
    checked: Checked | None = None
    """What such attributions of the model are worth; None: not checked."""

    name = "keys"
    title = "Key feature maps"

    def head_maps(self, label: str = "") -> HeadMaps:
        """Keys on the image's grid, each head's mean taken off (a constant added to K changes nothing)."""
        centred = self.maps - self.maps.mean((2, 3), keepdims=True)
        return HeadMaps(centred, "K − mean", by_offset=False, label=label or self.source)

    def record(self) -> dict[str, Any]:
        """The centred keys and the prediction."""
        return {
            "source": self.source,
            "prediction": self.prediction,
            "probabilities": self.probabilities,
            "maps": self.head_maps().values,
        }

    def table(self) -> Table:
        """How far a layer's keys spread, and how many equal sources would be as spread."""
        rows = []
        for layer, maps in enumerate(self.maps):
            share = np.exp(maps - maps.max((1, 2), keepdims=True)).reshape(len(maps), -1)
            share /= share.sum(1, keepdims=True)
            entropy = -(share * np.log(np.maximum(share, 1e-30))).sum(1)
            rows.append(
                [str(layer), f"{maps.std((1, 2)).mean():.3f}", f"{np.exp(entropy).mean():.1f}", str(share.shape[1])]
            )
        title = f"{self.source}: {self.predicted} ({100 * self.probabilities[self.prediction]:.1f} %)"
        return Table(["layer", "spread of K", "effective sources", "of positions"], rows, title, self._note())

    def _note(self) -> str:
        """What is known of the attribution beside the keys."""
        if self.checked is None:
            return f"its attribution is not checked; `aft-lens attribution {self.source}` does"
        return (
            f"its attribution knows {self.checked.checks[0].words} (checked on {self.checked.images} images: it must "
            "change when the weights are shuffled, and beat random pixels)"
        )

    @property
    def predicted(self) -> str:
        """Name of the most probable class, or its number."""
        return self.classes[self.prediction] if self.prediction < len(self.classes) else str(self.prediction)

    @property
    def attributed(self) -> "Attribution":
        """The attribution as a result of its own."""
        check = None if self.checked is None else self.checked.checks[0]
        return Attribution(self.attribution, self.predicted, self.prediction, self.probabilities, check)

    def save(self, out: Path | str, name: str | None = None) -> list[Path]:
        """The attribution's files beside the keys'."""
        return [*super().save(out, name), *self.attributed.save(out)]


@dataclass(frozen=True)
class Attribution(Result):
    """Which pixels speak for a prediction (above 0) and against it."""

    values: Float[np.ndarray, "y x"]
    """In units of the logit; they sum to what it gains over a grey image's."""
    predicted: str
    """Name of the predicted class, or its number."""
    prediction: int
    probabilities: Float[np.ndarray, "n"]
    check: Check | None = None
    """What such attributions of the model are worth; None: not checked."""

    name = "attribution"

    @property
    def size(self) -> tuple[float, float]:  # type: ignore[override]
        """The map, and beside it its check."""
        return (4.5 if self.check is None else 12.5), 3.6

    def record(self) -> dict[str, Any]:
        """The attribution as the one map of one layer."""
        return {
            "prediction": self.prediction,
            "probabilities": self.probabilities,
            "maps": self.values[None, None],
            "check": None if self.check is None else asdict(self.check) | {"knows": self.check.words},
        }

    def table(self) -> Table:
        """What speaks for and against the prediction in all."""
        sides = (self.values.clip(min=0).sum(), self.values.clip(max=0).sum(), self.values.sum())
        return Table(["class", "for (logit)", "against (logit)", "together"],
                     [[self.predicted, *(f"{side:+.3f}" for side in sides)]])  # fmt: skip

    def plot(self, figure: Figure | SubFigure) -> None:
        """Pixels with 0 in the middle of the colours, beside the panel of the check."""
        limit = float(np.abs(self.values).max()) or 1.0
        parts: Any = (figure,) if self.check is None else figure.subfigures(1, 2, width_ratios=[4.5, 8.0])
        axis = parts[0].subplots()
        if self.check is not None:
            draw_check(parts[1].subplots(1, 3), self.check)
        shown = axis.imshow(self.values, COLOURS, vmin=-limit, vmax=limit, interpolation="none")
        axis.set(xticks=[], yticks=[])
        parts[0].suptitle(f"Attribution of class {self.predicted}", fontsize=9)
        parts[0].colorbar(shown, ax=axis, label="logit")

    def interactive(self) -> go.Figure:
        """The same with the value under the pointer."""
        return pixels.attribution(self.values, f"Attribution of class {self.predicted}", height=420)


def key_maps(model: nn.Module, image: Float[Tensor, "c y x"]) -> KeyMaps:
    """Read the keys of one normalised image and attribute its prediction by integrated gradients (Captum).

    `check_attributions` says what such attributions of a model are worth.

    The model is an AFT-conv of ours, or any classifier that AFT-conv layers were put into: its layers are those, in
    the order of its modules. Raises ValueError for a model without any, or whose layers have other heads or grids from
    one to the next, and on an image of the wrong shape.
    """
    model = as_model(model)
    names = [f"{name}.hook_key".lstrip(".") for name, part in model.named_modules() if isinstance(part, AFTConv)]
    if not names:
        kind = model.config.mixer if isinstance(model, VisionModel) else type(model).__name__
        raise ValueError(f"key maps need AFT-conv layers, the model ({kind}) has none; attention_maps reads a ViT")
    channels = model.config.in_chans if isinstance(model, VisionModel) else image.shape[0]
    if image.ndim != 3 or image.shape[0] != channels:
        raise ValueError(f"image must be one image, {channels} x rows x columns, got shape {tuple(image.shape)}")
    with evaluating(model):
        batch = image.unsqueeze(0).to(next(model.parameters()).device)
        with torch.no_grad():
            logits, cache = run_with_cache(model, batch, names)
        if len(shapes := {tuple(cache[name].shape) for name in names}) > 1:
            raise ValueError(f"AFT-conv layers must have the same heads and grid to be drawn together, got {shapes}")
        probabilities = logits[0].softmax(-1)
        prediction = int(probabilities.argmax())
        attribution = integrated_gradients(model, batch, torch.tensor([prediction], device=batch.device))
    return KeyMaps(
        torch.stack([cache[name][0] for name in names]).float().cpu().numpy(),
        image.cpu().numpy(),
        prediction,
        probabilities.cpu().numpy(),
        attribution[0].float().cpu().numpy(),
    )


def command(
    checkpoint: Path,
    image: Path | None = None,
    sample: int | None = None,
    data: str | None = None,
    checked: int | None = None,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Print an image's class and how far each layer's keys spread over it, and save key maps and attribution.

    Args:
        checkpoint: An AFT-conv's folder, or the name of one that ships or was trained.
        image: An image file; a test image of the checkpoint's data if left out.
        sample: Number of that test image; the first if left out.
        data: Data set of that test image; the one that the model was trained on if left out.
        checked: Test images on which the attribution is checked (2 or more; 0: not at all), shuffling weights and
            deleting pixels; 8 if left out, or none of a model of images beyond 64 pixels, which takes minutes.
        root: Folder of downloaded data; data/ if left out.
        device: cpu, cuda or cuda:N.
        seed: Of the check.
        out: Folder for the files; reports/NAME if left out.
    """
    if image is not None and sample is not None:
        raise ValueError(f"image and sample exclude each other, got {image} and {sample}; give one of them")
    loaded = load_checkpoint(checkpoint, device)
    given = model_input(image_file(image), loaded.data) if image is not None else None
    found = key_maps(loaded.model, _sample(loaded, sample or 0, data, root) if given is None else given)
    classes = [str(name) for name in loaded.data["classes"]]
    count = (CHECKED if loaded.config.img_size <= SMALL else 0) if checked is None else checked
    check = _checked(loaded, count, data, root, seed) if count else None
    report(replace(found, source=str(checkpoint), classes=classes, checked=check), out or report_folder(checkpoint))


def _checked(loaded: Checkpoint, count: int, data: str | None, root: str | None, seed: int) -> Checked:
    """What the attribution shown is worth, on test images."""
    source = load_data(data or loaded.data["name"], root=root, img_size=loaded.data["img_size"])
    source.check_fits(loaded.data)
    images = torch.cat([batch for batch, _ in batches(source, count)]).to(next(loaded.model.parameters()).device)
    return check_attributions(
        loaded.model, images, {"integrated_gradients": integrated_gradients}, cell=loaded.config.patch_size, seed=seed,
        progress=True,
    )  # fmt: skip


def _sample(loaded: Checkpoint, number: int, data: str | None, root: str | None) -> Tensor:
    """A test image of the checkpoint's data, or of another data set that fits it."""
    source = load_data(data or loaded.data["name"], root=root, img_size=loaded.data["img_size"])
    source.check_fits(loaded.data)
    test = source.test
    count = len(test)
    if not 0 <= number < count:
        raise ValueError(f"sample must be from 0 to {count - 1}, got {number}")
    return test[number][0]


if __name__ == "__main__":
    run_module("analyses.keys", command)
