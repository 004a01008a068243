"""`aft-lens sample`: images or text that a decoder draws, one symbol after another."""

from collections.abc import Callable
from pathlib import Path

import torch

from aft_lens.checkpoint import DecoderCheckpoint, load_decoder
from aft_lens.models import Sampling, generate
from aft_lens.progress import ticks
from analyses.command import report, report_folder
from analyses.generation.pictures import as_symbols
from analyses.generation.result import Samples


def sampled(
    loaded: DecoderCheckpoint, *, count: int = 8, length: int = 0, prompt: str = "", sampling: Sampling = Sampling(),  # noqa: B008
    seed: int = 0, done: Callable[[int], object] = lambda count: None,
) -> Samples:  # fmt: skip
    """Draw `count` images, or texts of `length` bytes (0: the model's own) that begin with the prompt.

    `done` is called after each symbol. Raises ValueError on a prompt or length for images, and as `generate` does.
    """
    grid = tuple(loaded.data.get("grid") or ())
    if grid and (prompt or length not in (0, loaded.config.length)):
        raise ValueError(f"prompt and length are for text; {loaded.path.name} draws images of {grid}")
    if count < 1:
        raise ValueError(f"count must be 1 or more, got {count}")
    begin = as_symbols(prompt).repeat(count, 1).to(loaded.model.pos_embed.device)
    total = length or loaded.config.length
    found = generate(loaded.model, begin, total, sampling=sampling, seed=seed, done=done)
    return Samples(loaded.path.name, found.cpu(), begin.shape[1], grid, sampling, seed)


def command(
    checkpoint: Path,
    count: int = 8,
    length: int = 0,
    prompt: str = "",
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
) -> None:
    """Draw images or text from a decoder.

    Args:
        checkpoint: A decoder's folder, or the name of one that ships or was trained.
        count: Images or texts.
        length: Bytes of a text, the prompt included; the model's length if 0. Longer ones read their second half again.
        prompt: What every text begins with.
        temperature: Logits are divided by it; 0 takes the most probable symbol.
        top_k: Only so many of the most probable symbols; 0 is all.
        top_p: Only the most probable symbols that together have this probability.
        seed: Of the draws.
        device: cpu, cuda or cuda:N.
        out: Folder for samples.json, .png, .svg and .html; reports/NAME if left out.
    """
    loaded = load_decoder(checkpoint, device)
    with torch.no_grad():
        result = sampled(
            loaded, count=count, length=length, prompt=prompt, sampling=Sampling(temperature, top_k, top_p), seed=seed,
            done=ticks("symbols"),
        )  # fmt: skip
    report(result, out or report_folder(checkpoint))
