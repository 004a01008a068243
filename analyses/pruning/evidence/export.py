"""Compact models outside Python: `torch.export` and ONNX files, each checked against the model itself.

Needs the `export` extra (`pip install "aft-lens[export]"`): onnx, onnxscript and onnxruntime.
"""

import json
import logging
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from aft_lens.files import write_whole
from aft_lens.models import VisionModel
from aft_lens.ops.inspection import LARGEST, MOST_NEGATIVE
from analyses.pruning.cutting.compact import conv_mixers

TOLERANCE = {"torch.export": 1e-5, "onnx": 1e-4}
"""Largest |logit difference| allowed; onnxruntime sums matrix products in another order."""


@dataclass(frozen=True)
class Exported:
    """One exported file and how far its logits are from the model's."""

    format: str
    path: Path
    bytes: int
    max_logit_difference: float
    images: int

    def record(self) -> dict[str, Any]:
        """Every field, the file by its name alone."""
        return {**asdict(self), "path": self.path.name}


def export_model(model: VisionModel, images: Tensor, out: Path) -> list[Exported]:
    """Write model.pt2 and model.onnx (any batch size) into `out` and check both on `images` (`b c y x`).

    The parity batch is one image longer than the traced one, so a frozen batch size is found out. Raises
    ValueError with fewer than two images, if a bias is outside what the exported gather computes well, or if a
    file's logits differ from the model's by more than `TOLERANCE`.
    """
    if len(images) < 2:
        raise ValueError(f"images must hold at least 2 images to check a free batch size, got {len(images)}")
    _check_range(model)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model = model.cpu().eval()
    images = images.cpu()
    batch = torch.export.Dim("batch", min=1, max=65536)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # both exporters warn about their own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.export.export(model, (images[: max(2, len(images) - 1)],), dynamic_shapes=({0: batch},))
        torch.export.save(program, out / "model.pt2")
        written = torch.onnx.export(program, dynamo=True, verbose=False)
        if written is None:
            raise RuntimeError("torch.onnx.export returned no program; check the installed onnxscript")
        written.save(out / "model.onnx", include_initializers=True)
        expected = model(images)
        loaded = torch.export.load(out / "model.pt2").module()(images)
    onnx.checker.check_model(out / "model.onnx")
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    (ran,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    results = [
        _compare("torch.export", out / "model.pt2", expected, loaded),
        _compare("onnx", out / "model.onnx", expected, torch.from_numpy(ran)),
    ]
    write_whole(out / "export.json", json.dumps([result.record() for result in results], indent=1) + "\n")
    return results


def _compare(form: str, path: Path, expected: Tensor, found: Tensor) -> Exported:
    """The file's row, or ValueError if its logits are off."""
    gap = float((expected - found).abs().max())
    if not gap <= TOLERANCE[form]:
        raise ValueError(f"{path.name} must agree with the model to {TOLERANCE[form]:g}, logits differ by {gap:.3g}")
    return Exported(form, path, path.stat().st_size, gap, len(expected))


def _check_range(model: VisionModel) -> None:
    """Exported graphs hold the gather alone, without the forms for biases that it is not exact for."""
    for layer, mixer in enumerate(conv_mixers(model)):
        bias = mixer.position_bias
        if bias.keep is None:
            raise ValueError(f"model must be pruned to be exported, block {layer} has a {type(bias).__name__} bias")
        w = bias().detach()
        lowest = -LARGEST if bias.keep == 1 else MOST_NEGATIVE
        if w.numel() and not (float(w.min()) >= lowest and float(w.max()) <= LARGEST):
            raise ValueError(
                f"position biases must lie in [{lowest:g}, {LARGEST:g}] to be exported, block {layer} has "
                f"{float(w.min()):.3g} to {float(w.max()):.3g}; clamp them and fine-tune"
            )
