"""`aft-lens complete`: test images or text of which a decoder sees the beginning and draws the rest (Fig. 4)."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from aft_lens.checkpoint import DecoderCheckpoint, load_decoder
from aft_lens.data.sequences import Pixels, SequenceSource, load_sequences
from aft_lens.models import Sampling, generate
from aft_lens.progress import ticks
from analyses.command import report, report_folder
from analyses.generation.result import Completions


def completed(
    loaded: DecoderCheckpoint, data: SequenceSource, *, count: int = 8, times: int = 1, keep: float = 0.5,
    sampling: Sampling = Sampling(), seed: int = 0, done: Callable[[int], object] = lambda count: None,  # noqa: B008
) -> Completions:  # fmt: skip
    """Complete the first `count` test images, or pieces of the test text, `times` times each from a share of it.

    `keep` is the share that is given, whole rows of an image. Raises ValueError unless it leaves something to draw, and
    where the data does not fit the decoder.
    """
    data.check_fits(loaded.data)
    if count < 1 or times < 1 or not 0 <= keep < 1:
        raise ValueError(f"count and times must be 1 or more and keep in [0, 1), got {count}, {times} and {keep}")
    length = loaded.config.length
    truth = _first(data, count)
    row = length // data.grid[0] if data.grid else 1
    given = int(keep * length) // row * row
    begin = truth[:, :given].repeat_interleave(times, 0).to(loaded.model.pos_embed.device)
    found = generate(loaded.model, begin, length, sampling=sampling, seed=seed, done=done)
    return Completions(loaded.path.name, found.cpu(), given, data.grid, sampling, seed, truth)


def command(
    checkpoint: Path,
    images: int = 8,
    times: int = 1,
    keep: float = 0.5,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    data: str | None = None,
    root: str | None = None,
    device: str = "cpu",
    out: Path | None = None,
) -> None:
    """Cut test images or text off and have a decoder complete them.

    Args:
        checkpoint: A decoder's folder, or the name of one that ships or was trained.
        images: Test images, or pieces of the test text.
        times: Completions of each.
        keep: Share that is given, in whole rows of an image.
        temperature: Logits are divided by it; 0 takes the most probable symbol.
        top_k: Only so many of the most probable symbols; 0 is all.
        top_p: Only the most probable symbols that together have this probability.
        seed: Of the draws.
        data: Data in place of the checkpoint's own.
        root: Folder of downloaded data; data/ if left out.
        device: cpu, cuda or cuda:N.
        out: Folder for completions.json, .png, .svg and .html; reports/NAME if left out.
    """
    loaded = load_decoder(checkpoint, device)
    source = load_sequences(data or loaded.data["name"], root=root, length=loaded.config.length)
    result = completed(
        loaded, source, count=images, times=times, keep=keep, sampling=Sampling(temperature, top_k, top_p), seed=seed,
        done=ticks("symbols"),
    )  # fmt: skip
    report(result, out or report_folder(checkpoint))


def _first(data: SequenceSource, count: int) -> Int[Tensor, "n t"]:
    """The first test images, or pieces of the test text as far apart as the text allows."""
    if isinstance(data.test, Pixels):
        return data.test.symbols[:count].long()
    last = len(data.test.symbols) - data.length
    begin = torch.linspace(0, last, count).long().unsqueeze(1)
    return data.test.symbols[begin + torch.arange(data.length)].long()
