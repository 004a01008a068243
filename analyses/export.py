"""Models outside Python: `torch.export` and ONNX files, each checked against the model itself.

Needs the `export` extra (`pip install "aft-lens[export]"`): onnx, onnxscript and onnxruntime. The files hold plain
operators, so that PyTorch alone loads model.pt2, and any runtime model.onnx.
"""

import copy
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from aft_lens.checkpoint import load_checkpoint
from aft_lens.extraction import spread
from aft_lens.files import write_whole
from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.models import VisionModel
from aft_lens.ops.inspection import LARGEST, MOST_NEGATIVE
from aft_lens.progress import progress
from analyses.command import report_folder, run_module

TOLERANCE = {"torch.export": 1e-5, "onnx": 1e-4}
"""Largest |logit difference| allowed, over logits of 1 or their largest; onnxruntime sums products in another order."""
KINDS = ("offset", "attention", "replaced")
"""`Mixer.weights` of the mixers that have a form in plain operators."""


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


class WrittenOut(nn.Module):
    """A dense AFT-conv as the softmax over K_s + w_{s - t} that it is (Eq. 6), in plain operators.

    It holds T x T weights a head and image, as attention does, and is exact for any finite key and bias. The grid is
    the training one.
    """

    bias: Tensor
    """w of every offset of the window, and of what lies beyond it at last, `h n`."""
    index: Tensor
    """Which of them a target and a source have, `t s`."""

    def __init__(self, mixer: AFTConv, grid: tuple[int, int], sides: tuple[int, int]) -> None:
        super().__init__()
        self.mixer = mixer
        beyond = 0.0 if mixer.outside == "global" else float("-inf")
        w = mixer.position_bias.dense(sides).detach().flatten(1)
        self.register_buffer("bias", torch.cat([w, torch.full_like(w[:, :1], beyond)], 1))
        place = torch.cartesian_prod(*(torch.arange(side) for side in grid))
        offset = place.unsqueeze(0) - place.unsqueeze(1) + torch.tensor(sides) // 2
        inside = ((offset >= 0) & (offset < torch.tensor(sides))).all(-1)
        self.register_buffer("index", (offset[..., 0] * sides[1] + offset[..., 1]).where(inside, w.shape[1]))

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        """As the mixer's."""
        mixer = self.mixer
        weights = (mixer.key(x).transpose(1, 2).unsqueeze(2) + self.bias[:, self.index]).softmax(-1)
        mixed = spread(weights, mixer.value(x).unflatten(2, (mixer.num_heads, -1)).transpose(1, 2))
        return mixer.proj(mixed if mixer.query is None else mixer.query(x).sigmoid() * mixed)


def exportable(model: VisionModel) -> VisionModel:
    """A copy on the CPU whose every operator is PyTorch's own; ValueError on a model that has no such form."""
    config = model.config
    if config.traits.weights not in KINDS:
        raise ValueError(f"model mixes with {config.mixer}, which has no form to export; give an AFT-conv or a ViT")
    model = copy.deepcopy(model).cpu().eval()
    sides, grid = (config.window_size,) * 2, (config.grid_size,) * 2
    for layer, block in enumerate(model.blocks):
        mixer = block.get_submodule("mixer")
        if isinstance(mixer, AFTConv) and mixer.position_bias.keep is None:
            block.mixer = WrittenOut(mixer, grid, sides)
        elif isinstance(mixer, AFTConv):
            _check_range(layer, mixer)
    return model


def export_model(model: VisionModel, images: Tensor, out: Path) -> list[Exported]:
    """Write model.pt2 and model.onnx (any batch size) into `out` and check both on `images` (`b c y x`).

    The parity batch is one image longer than the traced one, so a frozen batch size is found out. Raises
    ValueError with fewer than two images, on a model that has no form in plain operators, if a pruned model's bias is
    outside what the exported gather computes well, or if a file's logits differ from the model's by more than
    `TOLERANCE`.
    """
    if len(images) < 2:
        raise ValueError(f"images must hold at least 2 images to check a free batch size, got {len(images)}")
    plain = exportable(model)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    model = model.cpu().eval()
    images = images.cpu()
    batch = torch.export.Dim("batch", min=1, max=65536)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # both exporters warn about their own deprecations
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.export.export(plain, (images[: max(2, len(images) - 1)],), dynamic_shapes=({0: batch},))
        expected = model(images)
        results = [
            _compare(form, out / name, expected, written(program, out / name, images))
            for form, (name, written) in progress(FORMS.items(), "export")
        ]
    write_whole(out / "export.json", json.dumps([result.record() for result in results], indent=1) + "\n")
    return results


def _torch_export(program: torch.export.ExportedProgram, path: Path, images: Tensor) -> Tensor:
    """Write model.pt2, and return the logits that it gives when read again."""
    torch.export.save(program, path)
    return torch.export.load(path).module()(images)


def _onnx(program: torch.export.ExportedProgram, path: Path, images: Tensor) -> Tensor:
    """Write model.onnx, and return the logits that onnxruntime makes of it."""
    written = torch.onnx.export(program, dynamo=True, verbose=False)
    if written is None:
        raise RuntimeError("torch.onnx.export returned no program; check the installed onnxscript")
    written.save(path, include_initializers=True)
    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (ran,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return torch.from_numpy(ran)


FORMS = {"torch.export": ("model.pt2", _torch_export), "onnx": ("model.onnx", _onnx)}
"""Name of each form's file, and what writes it."""


def _compare(form: str, path: Path, expected: Tensor, found: Tensor) -> Exported:
    """The file's row, or ValueError if its logits are off."""
    gap, limit = float((expected - found).abs().max()), TOLERANCE[form] * max(1.0, float(expected.abs().max()))
    if not gap <= limit:
        raise ValueError(f"{path.name} must agree with the model to {limit:.2g}, logits differ by {gap:.3g}")
    return Exported(form, path, path.stat().st_size, gap, len(expected))


def _check_range(layer: int, mixer: AFTConv) -> None:
    """Exported graphs hold the gather alone; for k > 1 they have no form for biases that it is not exact for."""
    w = mixer.position_bias().detach()
    if w.shape[1] > 1 and not (float(w.min()) >= MOST_NEGATIVE and float(w.max()) <= LARGEST):
        raise ValueError(
            f"biases of several positions a head must lie in [{MOST_NEGATIVE:g}, {LARGEST:g}] to be exported, block "
            f"{layer} has {float(w.min()):.3g} to {float(w.max()):.3g}; clamp them and fine-tune"
        )


def command(checkpoint: Path, out: Path | None = None, seed: int = 0) -> None:
    """Write a checkpoint as model.pt2 (torch.export) and model.onnx, and check both against it.

    Both take any number of images at the training size, normalised. `torch.export.load` needs PyTorch alone.

    Args:
        checkpoint: Folder of an AFT-conv, dense or pruned, or a ViT, compact or not, or the name of one that ships or
            was trained.
        out: Folder of the files; reports/NAME/export if left out.
        seed: Of the random images that the files are checked on.
    """
    loaded = load_checkpoint(checkpoint)
    config = loaded.config
    shape = (8, config.in_chans, config.img_size, config.img_size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    for found in export_model(loaded.model, images, out or report_folder(checkpoint) / "export"):
        print(
            f"wrote {found.path}: {found.bytes / 1e3:,.1f} kB, max |Δlogit| {found.max_logit_difference:.1e} over "
            f"{found.images} images"
        )


if __name__ == "__main__":
    run_module("analyses.export", command)
