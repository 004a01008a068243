"""Models and data that a fork holds, bounded by their bytes."""

from pathlib import Path

from torch import nn

from aft_lens.checkpoint import CONFIG, Checkpoint, load_checkpoint
from aft_lens.data import DATASETS, DataSource, load_data, load_samples, offline
from aft_lens.data.samples import FOLDER
from aft_lens.errors import InputError
from aft_lens.extraction import AFTReader, AttentionReader, Preprocessing, as_reader, open_source
from aft_lens.extraction.own import OwnReader
from app.held import Held
from app.places import allowed

MOST_BYTES = 400 * 2**20
"""Of weights and images that one fork keeps."""


HELD = Held(MOST_BYTES)


def checkpoint(source: str, revision: str) -> Checkpoint:
    """A checkpoint's model; errors as in `load_checkpoint`."""

    return HELD.get(
        ("checkpoint", source, revision), lambda: load_checkpoint(source), lambda found: _bytes(found.model)
    )


def own(source: str) -> bool:
    """Whether a source is a checkpoint of ours."""
    return (Path(source) / CONFIG).is_file()


def label(source: str) -> str:
    """What figures and tables call a model."""
    return Path(source).name if own(source) else source


def reader(source: str, revision: str) -> AttentionReader:
    """A reader of attention: of a ViT of any library, or of an AFT-conv written out. Errors as in `open_source`."""
    if own(source):
        found = checkpoint(source, revision)
        way, data = Preprocessing.of_record(found.data), found.data["name"]
        if found.config.traits.weights == "offset":
            return AFTReader(found.model, source, preprocessing=way, data=data)
        if found.config.traits.weights == "attention":
            return OwnReader(found.model, source, preprocessing=way, data=data)
        return as_reader(found.model)

    def load() -> AttentionReader:
        word, _, name = source.partition(":")
        if word == "hf" and Path(name).exists() and not allowed(Path(name)):
            raise InputError(f"{name} may not be shown here; start the app with --root {name}")
        return open_source(source)

    return HELD.get(("reader", source, revision), load, lambda found: _bytes(found.model))


def _bytes(model: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def data(name: str, img_size: int) -> DataSource:
    """A data set as its models see it, if it is here: a page fetches nothing, and shows no folder but those given.

    A checkpoint's record comes from whoever wrote it. Errors as in `load_data`.
    """
    word, _, path = name.partition(":")
    if DATASETS[word].argument == "PATH" and not allowed(Path(path)):
        wanted = Path(path).expanduser().resolve()
        raise FileNotFoundError(f"the images in {wanted} may not be shown here; start the app with --data {wanted}")

    def load() -> DataSource:
        with offline():
            return load_data(name, img_size=img_size)

    return HELD.get(("data", name, img_size), load, _image_bytes)


def _image_bytes(found: DataSource) -> int:
    """Roughly: images in memory are bytes, those in files are read when they are asked for."""
    return min(len(found.test), 10_000) * found.in_chans * found.img_size**2


def data_of(source: str, revision: str) -> DataSource:
    """The data set that a checkpoint was trained on, or the samples kept beside it where that is not to be had."""
    record = checkpoint(source, revision).data
    try:
        return data(record["name"], record["img_size"])
    except FileNotFoundError:
        if not (Path(source) / FOLDER).is_dir():
            raise
        return HELD.get(("samples", source, revision), lambda: load_samples(record, Path(source)), _image_bytes)


def images_for(source: str, revision: str, others: str = "") -> DataSource:
    """Images for a model: its own data's, or for another library's ViT those of the data set `others`."""
    if own(source):
        return data_of(source, revision)
    found = reader(source, revision)
    if not others or found.preprocessing is None:
        raise InputError(
            f"{source} does not say which images it was trained on; choose a data set for it, e.g. images:PATH"
        )
    return data(others, found.image_size[0])
