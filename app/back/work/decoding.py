"""What decoders make of beginnings, and where they look."""

from pathlib import Path
from typing import Any

from aft_lens.checkpoint import DecoderCheckpoint, load_decoder
from aft_lens.data import DATASETS, offline
from aft_lens.data.sequences import CORPORA, SequenceSource, load_kept_sequences, load_sequences
from aft_lens.data.sequences.samples import FILE
from aft_lens.models import Sampling
from analyses.decoders.maps import offset_biases
from analyses.generation import completed
from app.back import lines
from app.back.work import Tell, finish, shown


def completions(
    tell: Tell, place: str, source: str, revision: str, count: int, keep: float, temperature: float, seed: int
) -> None:
    """What a decoder makes of the beginnings of test sequences, symbol by symbol."""
    loaded = load_decoder(source)
    length = loaded.config.length
    result = completed(
        loaded, _sequences(loaded), count=count, keep=keep, sampling=Sampling(temperature), seed=seed,
        done=lambda number: tell(0.95 * number / length, f"{number} of {length} symbols", None),
    )  # fmt: skip
    content: dict[str, Any] = {"grid": list(result.grid), **shown(result)}
    if not result.grid:
        content["parts"] = [list(part) for part in result.parts()]
    finish(tell, place, result, content, lines.completions(source, count, keep, temperature, seed))


def decoder_biases(tell: Tell, place: str, source: str, revision: str) -> None:
    """w of a decoder by layer and offset."""
    tell(0.2, "reading", None)
    result = offset_biases(load_decoder(source))
    finish(tell, place, result, shown(result), lines.decoder_biases(source))


def _sequences(loaded: DecoderCheckpoint) -> SequenceSource:
    """The sequences kept beside a decoder, or what it was trained on, if it is here: a page fetches nothing."""
    path, record = Path(loaded.path), loaded.data
    if (path / FILE).is_file():
        return load_kept_sequences(record, path)
    word = record["name"].partition(":")[0]
    if word in CORPORA or DATASETS[word].argument:  # a record comes from whoever wrote it
        raise FileNotFoundError(
            f"{path} keeps no sequences beside it, and a page opens no file but those of checkpoints"
        )
    with offline():
        return load_sequences(record["name"], length=record["length"])
