"""A model, its images and what replaces its heads, opened by what a command said; in each process once."""

import multiprocessing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch.utils.data import DataLoader, Subset

from aft_lens.data.dataset import DATASETS
from aft_lens.extraction import AttentionReader, image_batches
from aft_lens.files import write_whole
from aft_lens.weights import read_tensors
from analyses.ablate.bench import Bench, Row
from analyses.ablate.calibration import Calibration, calibrate
from analyses.ablate.runner import Model
from analyses.explain import open_reader
from analyses.explain.probe import Probe, ProbedReader, fit_probe
from analyses.store import Store, fingerprint

BATCH = 32


@dataclass(frozen=True)
class Setup:
    """All that a measurement depends on beside the replacements; plain values, which other processes open again."""

    source: str
    data: str
    images: int
    """Test images."""
    calibration: int
    """Training images that maps, kernels and means are made from."""
    choosing: int
    """The first of these, by which heads are chosen where an order is measured."""
    probe: int
    """Training images of a linear probe; 0 takes the model's own classifier."""
    labels: str
    """"data", "model" or "none"."""
    pretrained: bool = True
    bfloat16: bool = False
    root: str | None = None
    device: str = "cpu"
    seed: int = 0
    weights: str = ""
    """Fingerprint of the model's weights: a model that was replaced meanwhile is another one."""


class Opened:
    """What a setup says, at hand; calibration and probe are kept in a folder."""

    def __init__(self, setup: Setup, folder: Path, *, progress: bool = False) -> None:
        self.setup = setup
        self.reader = open_reader(setup.source, pretrained=setup.pretrained, device=setup.device, seed=setup.seed)
        self._kept = Store(folder)
        self._benches: dict[bool, Bench] = {}
        self.probe: Probe | None = None
        if setup.probe:
            self.probe = self._probe(progress)
            self.reader = ProbedReader(self.reader, self.probe)
        self.calibration = self._calibration(progress)

    def bench(self, choosing: bool) -> Bench:
        """Where models are measured: test images, or those that heads are chosen by."""
        if choosing not in self._benches:
            setup = self.setup
            split, images = ("train", setup.choosing) if choosing else ("test", setup.images)
            self._benches[choosing] = Bench(
                self.reader, self.calibration, self._batches(split, images), classes=setup.labels != "none",
                own_labels=setup.labels == "model", bfloat16=setup.bfloat16, seed=setup.seed,
            )  # fmt: skip
        return self._benches[choosing]

    def _batches(self, split: str, images: int) -> Any:
        way, setup = self.reader.preprocessing, self.setup
        if way is None:
            raise ValueError(f"{setup.source} does not say how images must come; save its image processor beside it")
        labelled = setup.labels == "data" or bool(setup.probe)
        # Images without classes are the same in every split: those that calibrate are left out of the test.
        skipped = setup.calibration if split == "test" and not DATASETS[setup.data.partition(":")[0]].labelled else 0
        loader = image_batches(
            way, setup.data, images=images + skipped, split=split, batch_size=BATCH, root=setup.root, labelled=labelled
        )  # fmt: skip
        if not skipped:
            return loader
        found: Any = loader.dataset
        if len(found) <= skipped:
            raise ValueError(
                f"{setup.data} has {len(found)} images, of which --calibration {skipped} takes all; give fewer to it"
            )
        return DataLoader(Subset(found, range(skipped, len(found))), BATCH)

    def _probe(self, progress: bool) -> Probe:
        mark, path = fingerprint(self.setup, "probe"), self._kept.folder / "probe.safetensors"
        kept = self._kept.get("probe", mark)
        if kept is not None and path.is_file():
            tensors = read_tensors(path)
            return Probe(tensors["weight"], tensors["bias"], kept["penalty"], kept["images"])
        found = fit_probe(
            self.reader, self._batches("train", self.setup.probe), seed=self.setup.seed, progress=progress
        )  # fmt: skip
        write_whole(path, save({"weight": found.weight.contiguous(), "bias": found.bias.contiguous()}))
        self._kept.put("probe", mark, {"penalty": found.penalty, "images": found.images})
        return found

    def _calibration(self, progress: bool) -> Calibration:
        mark, path = fingerprint(self.setup, "calibration"), self._kept.folder / "calibration.safetensors"
        if self._kept.get("calibration", mark) is not None and path.is_file():
            return Calibration.load(path)
        found = calibrate(self.reader, self._batches("train", self.setup.calibration), progress=progress)
        found.save(path)
        self._kept.put("calibration", mark, {"images": found.positions.images})
        return found


@lru_cache(maxsize=1)
def opened(setup: Setup, folder: Path) -> Opened:
    """The one that this process measures with."""
    helper = multiprocessing.parent_process() is not None
    if helper:
        torch.set_num_threads(1)  # they share the cores
    return Opened(setup, folder, progress=not helper)


def measured(model: Model, *, setup: Setup, folder: Path) -> Row:
    """One replaced model, in whatever process."""
    return opened(setup, folder).bench(model.choosing).row(dict(model.edits), model.start)


def weights_mark(reader: AttentionReader) -> str:
    """A fingerprint of a model's weights: their names, shapes, sums and sums of squares."""
    state = {
        name: (tuple(x.shape), float(x.double().sum()), float(x.double().square().sum()))
        for name, x in reader.model.state_dict().items() if isinstance(x, torch.Tensor)
    }  # fmt: skip
    return fingerprint(state)
