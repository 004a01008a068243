"""`aft-lens demo`: train a single-position AFT-conv, prune it to indexing, set it beside a ViT, write a report."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import plotly.graph_objects as go

from aft_lens import training
from aft_lens.checkpoint import SHIPPED, Checkpoint, list_checkpoints, load_checkpoint, read_metrics
from aft_lens.data import load_data
from aft_lens.data.batches import BATCH, batches
from aft_lens.training import read_recipe
from analyses.attention import AttentionMaps, attention_maps
from analyses.bias import BiasMaps, position_bias_maps
from analyses.command import run_module
from analyses.maps.head_maps import HeadMaps, nearest_frame, shared_bound
from analyses.maps.mosaic import mosaic
from analyses.page import Section, write_page
from analyses.pruning import PruneLadder, prune_to_indexing
from app import serve as server
from app.views import locality
from app.views.training import curves

FIRST = "digits-single"
"""Trained before the user's eyes; the others ship and are trained only where they are missing."""
OTHERS = ("digits-entropy", "digits-conv", "digits-vit")
IMAGES = 256
"""Test images that the ViT's attention is averaged over, as in the paper."""
PARITY = 1e-5
"""Largest |Δlogit| allowed between the masked and the indexed model in float32."""


@dataclass(frozen=True)
class Result:
    """Where the report is, and the figures that were printed."""

    page: Path
    ladders: dict[str, PruneLadder]
    seconds: float

    @property
    def parity(self) -> float:
        """The largest |Δlogit| between a masked and an indexed model of any ladder."""
        return max(result.max_logit_difference for result in self.ladders.values())


def command(
    out: Path = Path("reports/demo"), serve: bool = True, port: int = 8501, shipped: Path = SHIPPED, seed: int = 0
) -> None:
    """Train digits-single, prune it, compare it with a ViT, write a report, then serve the app.

    Raises ValueError if masked and indexed logits differ by more than `PARITY`.

    Args:
        out: Folder for the trained checkpoint, the figures (PNG, SVG, JSON) and index.html.
        serve: Serve the app afterwards; --no-serve ends once the report is written.
        port: Port of the app; 0 takes a free one.
        shipped: Folder with the checkpoints that are not trained here.
        seed: Seed of the training.
    """
    result = run(out, shipped, seed)
    print(f"\nReport: {result.page}   ({result.seconds:.0f} s in all)", flush=True)
    if result.parity > PARITY:
        raise ValueError(f"masked and indexed logits must agree to {PARITY:g}, they differ by {result.parity:.2g}")
    if serve:
        server.command([out / "checkpoints", *([shipped] if shipped.is_dir() else [])], port)


def run(out: Path, shipped: Path = SHIPPED, seed: int = 0) -> Result:
    """Everything but serving: train, load, prune, print and write the report."""
    start = time.perf_counter()
    step(1, f"Training {FIRST}: every head learns to look at one position (Eq. 10)")
    paths = {FIRST: train_recipe(FIRST, out / "checkpoints" / FIRST, seed)}
    step(2, "Loading the models to compare it with")
    there = {path.name: path for path in list_checkpoints(shipped)}
    for name in OTHERS:
        paths[name] = there[name] if name in there else train_recipe(name, out / "checkpoints" / name, seed)
        print(f"  {name}: {paths[name]}", flush=True)
    models = {name: load_checkpoint(path) for name, path in paths.items()}
    source = load_data(models[FIRST].data["name"], img_size=models[FIRST].data["img_size"])
    images = batches(source)
    step(3, "Pruning to indexing: every head keeps one offset")
    ladders = {}
    for name in (FIRST, "digits-entropy"):
        ladders[name] = prune_to_indexing(models[name].model, images, batch_sizes=(BATCH,))
        ladders[name].save(out / "ladder" / name)
        print(f"\n{name}\n{ladders[name].table().text()}")
    parity = max(found.max_logit_difference for found in ladders.values())
    print(f"\nParity: max |Δlogit| between the masked and the indexed model {parity:.1e} (at most {PARITY:g})")
    step(4, "Drawing the maps and writing the report")
    biases = {n: position_bias_maps(c.model) for n, c in models.items() if c.config.traits.weights != "attention"}
    attention = attention_maps(models["digits-vit"].model, images[: IMAGES // BATCH])
    for name, maps in biases.items():
        maps.save(out / "bias" / name)
    attention.save(out / "attention")
    sections = report_sections(models, biases, attention, ladders)
    seconds = time.perf_counter() - start
    page = write_page(
        out / "index.html",
        "AFT Lens: the demo's report",
        "A single-position AFT-conv trained on scikit-learn's digits, pruned to pure indexing, beside an "
        "entropy-regularized one, a plain one and a ViT trained on the same images.",
        sections,
        f"Trained with seed {seed}; {seconds:.0f} s in all. Interactive: hover a cell for its offset and value.",
    )
    return Result(page, ladders, seconds)


def train_recipe(name: str, path: Path, seed: int) -> Path:
    """Train a shipped recipe into `path`, replacing what an earlier demo left there."""
    training.remove_run(path)
    recipe = read_recipe(name, f"seed={seed}")
    return training.train(recipe, path)


def report_sections(
    models: dict[str, Checkpoint],
    biases: dict[str, BiasMaps],
    attention: AttentionMaps,
    ladders: dict[str, PruneLadder],
) -> list[Section]:
    """The report: where each model looks, how far, the ladders, and the training curves."""
    shown = [found.head_maps(name) for name, found in biases.items()]
    shown.append(attention.head_maps("digits-vit"))
    frame = nearest_frame(*shown)
    framed = [maps.framed(*frame) for maps in shown]
    bound = shared_bound(*framed)
    sections = [
        Section(
            "Where each head looks",
            "exp(w) − 1 of the AFT models and, for the ViT, n × attention − 1 averaged over "
            f"{attention.images} test images: in both, zero weighs like any other position. One colour scale.",
            figures=[(f"{maps.label}: {maps.unit}", mosaic(maps, bound=bound)) for maps in framed],
        ),
        Section(
            "How far each layer looks",
            figures=[("Mean distance by layer; a dot is a head", _distances(shown))],
        ),
    ]
    for name, result in ladders.items():
        sections.append(
            Section(
                f"Pruned to indexing: {name}",
                "Every head keeps its strongest offset. Masked is the dense convolution with the rest set to zero; "
                "indexed is pooling and one gather, with the same outputs.",
                table=result.table(),
                figures=[("", result.interactive())],
                note=f"{result.images} test images; one forward pass of {BATCH} images on this CPU.",
            )
        )
    rows = read_metrics(models[FIRST].path)
    if rows:
        sections.append(Section(f"Training {FIRST}", figures=[("", curves(rows))]))
    return sections


def step(number: int, text: str) -> None:
    """Print a numbered heading."""
    print(f"\n[{number}/4] {text}", flush=True)


def _distances(shown: Sequence[HeadMaps]) -> go.Figure:
    """Mean distance by layer of every model."""
    series = [(maps.label, maps.distance) for maps in shown if maps.distance is not None]
    return locality.by_layer(series, name="mean distance (patches)")


if __name__ == "__main__":
    run_module("app.demo", command)
