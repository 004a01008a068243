"""`aft-lens prune` and `python -m analyses.pruning`: cut a checkpoint to k offsets a head and measure it."""

import importlib
from pathlib import Path
from typing import Any

from aft_lens.checkpoint import load_checkpoint, read_metrics, save_checkpoint
from aft_lens.progress import Passes
from analyses.pruning.images import load_images
from analyses.pruning.measuring.ladder import prune_to_indexing

MODEL = "model"


def command(
    checkpoint: Path,
    keep: float = 1,
    criterion: str = "magnitude",
    budget: str = "head",
    finetune: int = 0,
    steps: tuple[float, ...] = (),
    drop_heads: float | None = None,
    data: str | None = None,
    root: str | None = None,
    images: int = 0,
    calibration: int = 512,
    batch_sizes: tuple[int, ...] = (64, 1),
    device: str = "cpu",
    seed: int = 0,
    export: bool = False,
    out: Path | None = None,
) -> None:
    """Prune a checkpoint's position biases to indexing and print the ladder.

    Args:
        checkpoint: an AFT-conv's folder, or the name of one that ships or was trained: dense, single-position or
            already pruned.
        keep: offsets a head; 0 leaves pooling alone. A mean over heads with --budget layer or global.
        criterion: magnitude, hard, activation, taylor, exact, the controls random and centre, or one that is added.
        budget: head, layer or global: within what the best offsets compete.
        finetune: epochs of training after the cut (and after each of --steps).
        steps: falling offsets a head to cut to and fine-tune at before the last, as '[16,4]'.
        drop_heads: accuracy on the calibration images (0 to 1) that whole heads may cost, which then go to AFT-simple.
        data: data set to measure on; by default the checkpoint's own.
        root: folder of downloaded data; data/ if left out.
        images: test images to measure on; 0 takes all.
        calibration: training images that a measured criterion is computed on.
        batch_sizes: batches to time.
        device: cpu, cuda or cuda:N.
        seed: of calibration images, the random control and fine-tuning.
        export: also write model.pt2 and model.onnx and check them (needs the export extra).
        out: a folder for the compact checkpoint, JSON, CSV and figures.
    """
    if export and out is None:
        raise ValueError("out must name a folder for the exported files, got none; add --out DIR")
    if out is not None and (Path(out) / MODEL).exists():
        raise FileExistsError(f"{Path(out) / MODEL} holds a model; choose another --out, or remove it")
    loaded = load_checkpoint(checkpoint, device)
    source = load_images(
        loaded.data, data=data, root=root, test=images, calibration=calibration, seed=seed, device=device
    )
    ladder = prune_to_indexing(
        loaded.model,
        Passes(source.test, "prune"),
        keep,
        criterion=criterion,
        budget=budget,
        calibration=Passes(source.calibration, "calibrate"),
        train=source.train,
        finetune=finetune,
        steps=steps,
        drop_heads=drop_heads,
        seed=seed,
        batch_sizes=batch_sizes,
    )
    print(f"{checkpoint} on {ladder.images} images of {source.source}, latency of a batch of {batch_sizes[0]}")
    print(ladder)
    print(f"max |Δlogit| masked against indexed: {ladder.max_logit_difference:.2e}")
    if drop_heads is not None:
        print(f"heads without a bias: {ladder.rows[-1].dropped_heads}")
    if out is None:
        return
    out = Path(out)
    paths = ladder.save(out)
    pruning: dict[str, Any] = {
        "keep": keep,
        "criterion": criterion,
        "budget": budget,
        "finetune": finetune,
        "steps": list(steps),
    }
    pruning["drop_heads"] = drop_heads
    metrics = [] if finetune else read_metrics(loaded.path)
    metrics = [*metrics, {"test_accuracy": ladder.rows[-1].accuracy}]
    recipe = {**loaded.recipe, "pruned_from": Path(checkpoint).name, "pruning": {**pruning, "seed": seed}}
    paths.append(
        save_checkpoint(out / MODEL, ladder.model, data=loaded.data, recipe=recipe, seed=loaded.seed, metrics=metrics)
    )
    if export:
        exporter = importlib.import_module("analyses.export")
        for result in exporter.export_model(ladder.model, source.test[0][0][:8], out / "export"):
            print(f"{result.format}: max |Δlogit| {result.max_logit_difference:.2e}, {result.bytes / 1e3:.1f} kB")
            paths.append(result.path)
    print("\n".join(f"wrote {path}" for path in paths))
