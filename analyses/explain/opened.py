"""A model, its images and what they say of its heads, opened by what a command said; in each process once."""

import multiprocessing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save

from aft_lens.checkpoint import CONFIG, checkpoint_folder, load_checkpoint
from aft_lens.data.dataset import DATASETS
from aft_lens.extraction import AFTReader, AttentionReader, Preprocessing, image_batches, open_source
from aft_lens.files import write_whole
from aft_lens.models import seeded_model
from aft_lens.weights import read_tensors
from analyses.cells import share_cores
from analyses.command import known_data
from analyses.explain.causal import Batches, Outcome, own_labels
from analyses.explain.measure import Edited, edited_outcome
from analyses.explain.plan import Plan
from analyses.explain.position import HeadPositions, head_positions
from analyses.explain.probe import Probe, ProbedReader, fit_probe
from analyses.store import Store, fingerprint


def open_reader(
    source: str, *, pretrained: bool = True, device: torch.device | str = "cpu", seed: int = 0
) -> AttentionReader:
    """A reader of any ViT that `open_source` opens, or of an AFT-conv checkpoint; errors as there."""
    if (checkpoint_folder(source) / CONFIG).is_file():
        loaded = load_checkpoint(source, device)
        if loaded.config.traits.weights == "offset":
            way = Preprocessing.of_record(loaded.data)
            model = loaded.model
            if not pretrained:
                model = seeded_model(loaded.config, seed).to(model.norm.weight.device).eval()
            return AFTReader(model, source, preprocessing=way, data=loaded.data["name"])
    return open_source(source, pretrained=pretrained, device=device, seed=seed)


@dataclass(frozen=True)
class Setup:
    """All that a measurement depends on beside the edits; plain values, which other processes open again."""

    source: str
    data: str
    images: int
    """Test images."""
    calibration: int
    """Training images that maps and all that replaces heads are made from."""
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
    batch: int = 64
    """Images a batch."""

    def of(self, reader: AttentionReader) -> Self:
        """The same with the fingerprint of a model's weights: their names, shapes, sums and sums of squares."""
        state = {
            name: (tuple(x.shape), float(x.double().sum()), float(x.double().square().sum()))
            for name, x in reader.model.state_dict().items() if isinstance(x, torch.Tensor)
        }  # fmt: skip
        return replace(self, weights=fingerprint(state))


class Opened:
    """A setup's reader, with its probe if it has one, which is kept in a folder, and its images."""

    def __init__(self, setup: Setup, folder: Path, *, progress: bool = False) -> None:
        self.setup, self.progress = setup, progress
        self.reader = open_reader(setup.source, pretrained=setup.pretrained, device=setup.device, seed=setup.seed)
        self.kept = Store(folder)
        self.probe: Probe | None = None
        if setup.probe:
            self.probe = self._probe()
            self.reader = ProbedReader(self.reader, self.probe)

    def batches(self, split: str, images: int) -> Any:
        """Images of a split as the model takes them; those without classes that calibrate are left out of a test."""
        setup = self.setup
        data, way = known_data(setup.source, setup.data, self.reader.preprocessing)
        labelled = setup.labels == "data" or bool(setup.probe)
        # Images without classes are the same in every split.
        skipped = setup.calibration if split == "test" and not DATASETS[data.partition(":")[0]].labelled else 0
        loader: Any = image_batches(
            way, data, images=images + skipped, split=split, batch_size=setup.batch, root=setup.root, labelled=labelled,
            skip=skipped, device=self.reader.device,
        )  # fmt: skip
        if not len(loader.dataset):
            raise ValueError(f"{data} has no images beyond the {skipped} that calibrate; give fewer to them")
        return loader

    def _probe(self) -> Probe:
        mark, path = fingerprint(self.setup, "probe"), self.kept.folder / "probe.safetensors"
        kept = self.kept.get("probe", mark)
        if kept is not None and path.is_file():
            tensors = read_tensors(path)
            return Probe(tensors["weight"], tensors["bias"], kept["penalty"], kept["images"])
        batches = self.batches("train", self.setup.probe)
        found = fit_probe(self.reader, batches, seed=self.setup.seed, progress=self.progress)
        write_whole(path, save({"weight": found.weight.contiguous(), "bias": found.bias.contiguous()}))
        self.kept.put("probe", mark, {"penalty": found.penalty, "images": found.images})
        return found


class Explained(Opened):
    """What an explanation edits and measures: its images at hand, and what they say of its heads, kept in a folder."""

    def __init__(self, setup: Setup, folder: Path, *, progress: bool = False) -> None:
        super().__init__(setup, folder, progress=progress)
        self.calibration, self.test = (
            self._given(split, images) for split, images in (("train", setup.calibration), ("test", setup.images))
        )
        self.positions = self._positions()

    def outcome(self, edited: Edited, plan: Plan) -> Outcome:
        """What an edited model makes of its images."""
        return edited_outcome(
            self.reader, self.positions, self.calibration if edited.calibration else self.test, edited, plan
        )

    def _given(self, split: str, images: int) -> Batches:
        given = [(x, y) for x, y in self.batches(split, images)]
        return list(own_labels(self.reader, given)) if self.setup.labels == "model" else given

    def _positions(self) -> HeadPositions:
        mark, path = fingerprint(self.setup, "positions"), self.kept.folder / "positions.safetensors"
        if self.kept.get("positions", mark) is not None and path.is_file():
            return HeadPositions.of_tensors(read_tensors(path))
        found = head_positions(self.reader, self.calibration, progress=self.progress)
        write_whole(path, save(found.tensors()))
        self.kept.put("positions", mark, {"images": found.images})
        return found


@lru_cache(maxsize=1)
def explained(setup: Setup, folder: Path) -> Explained:
    """The one that this process measures with."""
    share_cores()
    return Explained(setup, folder, progress=multiprocessing.parent_process() is None)


def measured(edited: Edited, *, setup: Setup, plan: Plan, folder: Path) -> Outcome:
    """What one edited model makes of its images, in whatever process."""
    return explained(setup, folder).outcome(edited, plan)
