"""The sequences that a decoder is measured on."""

from dataclasses import replace
from pathlib import Path

from aft_lens.checkpoint import DecoderCheckpoint, load_decoder
from aft_lens.data.sequences import Pixels, SequenceSource, Stream, load_sequences
from aft_lens.training import Bits, measure_bits


def opened(
    checkpoint: Path, data: str | None, root: str | None, device: str
) -> tuple[DecoderCheckpoint, SequenceSource]:
    """A decoder and its data, or other data that fits. Raises ValueError where it does not."""
    loaded = load_decoder(checkpoint, device)
    source = load_sequences(data or loaded.data["name"], root=root, length=loaded.config.length)
    source.check_fits(loaded.data)
    return loaded, source


def bits_of(loaded: DecoderCheckpoint, split: Pixels | Stream, windows: int) -> Bits:
    """Bits of the first windows of a split; text with half the length as context."""
    context = 1 if isinstance(split, Pixels) else max(1, split.length // 2)
    device = loaded.model.pos_embed.device
    return measure_bits(loaded.model, split, context=context, limit=windows, device=device)


def part_of(source: SequenceSource, split: str) -> Pixels | Stream:
    """A split by its name, whole."""
    return replace(getattr(source, split))
