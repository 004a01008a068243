"""The only place of the app that caches: checkpoints, data and analyses, keyed by path and revision."""

import json
import math
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st
import torch
from streamlit import runtime
from streamlit.runtime.scriptrunner import StopException, get_script_run_ctx
from torch import Tensor

from aft_lens.checkpoint import (
    CONFIG,
    SHIPPED,
    WEIGHTS,
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    read_config,
    read_first,
    read_snapshots,
    revision,
)
from aft_lens.data import DATASETS, UNCOUNTED, DataSource, load_data, load_samples, offline
from aft_lens.data.batches import BATCH, batches
from aft_lens.data.samples import FOLDER
from aft_lens.errors import InputError, answer, markless
from aft_lens.layers.mixer import MIXERS, Mixer
from analyses.attention import AttentionMaps, attention_maps
from analyses.bias import BiasMaps, position_bias_maps
from analyses.keys import KeyMaps, key_maps
from analyses.pruning import PruneLadder, prune_to_indexing
from analyses.result import Result
from app.commands import command_module
from app.serve import DATA_VARIABLE, ROOTS_VARIABLE

T = TypeVar("T")
CALIBRATION = 512
"""Validation images that a measured pruning criterion is computed on."""
MEASURED = 360
"""Test images that a rung is measured on, for an answer while one waits: all of digits."""
_LOCKS: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
"""By path and revision: hooks are set on a shared model while it runs, so two sessions must not run one at once.

What takes seconds loads a model of its own instead, and nobody waits for another's.
"""


class Attended(Sequence[T]):
    """Items that a job goes through while its visitor is there; where he has left, the job ends at the next one."""

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: Any) -> Any:
        return self.items[place]

    def __iter__(self) -> Iterator[T]:
        for item in self.items:
            visit = get_script_run_ctx(suppress_warning=True)
            if (
                visit is not None
                and runtime.exists()
                and not runtime.get_instance().is_active_session(visit.session_id)
            ):
                raise StopException
            yield item


@dataclass(frozen=True)
class Entry:
    """A checkpoint as the pickers list it."""

    label: str
    path: Path
    revision: str
    mixer: str
    line: str
    """Its architecture and data in a line."""
    window: int = 1
    """Side of AFT-conv's window, in patches."""
    pruned: bool = False
    """Whether its biases are indexed already."""
    problem: str = ""
    """Why it cannot be read; empty for one that can."""

    @property
    def traits(self) -> Mixer:
        """What its mixer can be looked at by."""
        return MIXERS[self.mixer]


def roots() -> list[Path]:
    """Folders searched: AFT_LENS_ROOTS if set, else checkpoints/ and runs/ here, and the shipped checkpoints."""
    given = _folders(ROOTS_VARIABLE)
    if given:
        return given
    here = [Path("checkpoints"), Path("runs")]
    return here if here[0].resolve() == SHIPPED or not SHIPPED.is_dir() else [*here, SHIPPED]


def _folders(variable: str) -> list[Path]:
    """The folders in an environment variable: a JSON list, or by hand separated like PATH."""
    given = os.environ.get(variable, "")
    parts = json.loads(given) if given.startswith("[") else given.split(os.pathsep)
    return [Path(part) for part in parts if part]


def catalogue() -> dict[str, Entry]:
    """Every checkpoint below the roots by label: its folder's name, with its parent's where two share one."""
    paths = [path for root in roots() for path in list_checkpoints(root)]
    names = [path.name for path in paths]
    found: dict[str, Entry] = {}
    for path in paths:
        label = path.name if names.count(path.name) == 1 else "/".join(path.parts[-2:])
        label = markless(label)
        found.setdefault(label, _entry(label, str(path), _stamp(path)))
    return found


@st.cache_resource(max_entries=8, show_spinner="Loading the checkpoint …")
def checkpoint(path: str, revision: str) -> Checkpoint:
    """A loaded checkpoint; errors as in `load_checkpoint`."""
    return load_checkpoint(path)


@st.cache_resource(max_entries=4, show_spinner="Loading the images …")
def data(name: str, img_size: int) -> DataSource:
    """A data set as its models see it, if it is here: a page fetches nothing, and shows no folder but those given.

    A checkpoint's record comes from whoever wrote it. Errors as in `load_data`.
    """
    word, _, path = name.partition(":")
    if DATASETS[word].argument == "PATH":
        given = [folder.resolve() for folder in (*roots(), *_folders(DATA_VARIABLE), Path.cwd())]
        wanted = Path(path).expanduser().resolve()
        if not any(wanted.is_relative_to(folder) for folder in given):
            raise FileNotFoundError(f"the images in {wanted} may not be shown here; start the app with --data {wanted}")
    with offline():
        return load_data(name, img_size=img_size)


@st.cache_resource(max_entries=16, show_spinner="Loading the images …")
def data_of(path: str, revision: str) -> DataSource:
    """The data set that a checkpoint was trained on, or the samples kept beside it where that is not to be had.

    Errors as in `load_data`.
    """
    record = checkpoint(path, revision).data
    try:
        return data(record["name"], record["img_size"])
    except FileNotFoundError:
        if not (Path(path) / FOLDER).is_dir():
            raise
        return load_samples(record, Path(path))


@st.cache_data(max_entries=32, show_spinner=False)
def bias_maps(path: str, revision: str) -> BiasMaps:
    """exp(w) − 1 of a checkpoint by layer and head."""
    with _LOCKS[path, revision]:
        return position_bias_maps(checkpoint(path, revision).model, path, read_first(path))


@st.cache_data(max_entries=16, show_spinner="Averaging attention over the images …")
def relative_maps(path: str, revision: str, images: int) -> AttentionMaps:
    """Relative attention of a ViT over test images of its data."""
    return attention_maps(load_checkpoint(path).model, Attended(batches(data_of(path, revision), images)))


@st.cache_data(max_entries=64, show_spinner="Reading the keys …")
def keys_of(path: str, revision: str, image: Any) -> KeyMaps:
    """Keys, prediction and attribution for one normalised image, given as an array `c y x` to be hashed."""
    with _LOCKS[path, revision]:
        return key_maps(checkpoint(path, revision).model, torch.from_numpy(image))


@st.cache_resource(max_entries=16, show_spinner="Pruning and measuring (up to half a minute for the larger models) …")
def pruned(path: str, revision: str, keep: int, criterion: str) -> PruneLadder:
    """The ladder of a checkpoint at `keep` offsets a head, chosen on validation and measured on test images."""
    source = data_of(path, revision)
    if bool((source.test.labels == UNCOUNTED).all()):
        raise InputError(
            f"{source.name} is not here, and accuracy needs its classes: `aft-lens evaluate {path}` fetches it"
        )
    return prune_to_indexing(
        load_checkpoint(path).model,
        Attended(batches(source, MEASURED)),
        keep,
        criterion=criterion,
        calibration=Attended(batches(source, CALIBRATION, "val")),
        batch_sizes=(BATCH,),
    )


@st.cache_resource(max_entries=16, show_spinner="Analysing …")
def shown(name: str, path: str, revision: str) -> Result:
    """What an analysis shows of a checkpoint; errors as the analysis raises."""
    return command_module(name).show(Path(path))


@st.cache_data(max_entries=4, show_spinner=False)
def snapshots(path: str, written: float) -> dict[int, dict[str, Tensor]]:
    """Position biases by epoch and layer of a run whose metrics were written at `written`."""
    return read_snapshots(path)


def _stamp(path: Path) -> tuple[float, ...]:
    """Times and sizes of the files that make a revision, so that unchanged ones are not hashed again."""
    try:
        files = [(path / part).stat() for part in (WEIGHTS, CONFIG)]
    except OSError:
        return (math.nan,)
    return tuple(number for file in files for number in (file.st_mtime, file.st_size))


@st.cache_data(max_entries=256, show_spinner=False)
def _entry(label: str, path: str, stamp: tuple[float, ...]) -> Entry:
    """A checkpoint's entry from its configuration alone."""
    try:
        found = read_config(path)
        model, traits = found.model, found.model.traits
        kind = f", {model.window_size} × {model.window_size} window" if traits.weights == "offset" else ""
        kept = ", pruned to indexing" if model.keep else ""
        data = found.data["name"]
        line = f"{traits.label}{kept} · {model.depth} layers × {model.num_heads} heads{kind} · {data}"
        return Entry(label, Path(path), revision(path), model.mixer, line, model.window_size, bool(model.keep))
    except (ValueError, OSError) as error:
        return Entry(label, Path(path), "", "", "", problem=answer(error) or str(error))
