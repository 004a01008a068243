"""Do two models share the draw that they started from? Heads that are alike may then be alike because of it."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch

from aft_lens.checkpoint import CONFIG, checkpoint_folder, load_checkpoint, read_first


def shared_start(first: Path | str, second: Path | str) -> str:
    """What two checkpoints share of their start, in words; empty where nothing, or where one is no checkpoint of ours.

    Kept starts are compared entry by entry. Models without them count as of one draw if their seeds, mixers and the
    shapes of their heads are equal.
    """
    paths = checkpoint_folder(first), checkpoint_folder(second)
    if not all((path / CONFIG).is_file() for path in paths):
        return ""
    starts = [read_first(path) for path in paths]
    if all(starts):
        one, other = starts
        common = [name for name in one if name in other and one[name].shape == other[name].shape]
        same = sum(torch.equal(one[name], other[name]) for name in common)
        return f"{first} and {second} start from one draw in {same} of {len(one)} layers" if same else ""
    loaded = [load_checkpoint(path) for path in paths]
    shapes = [
        (each.seed, each.config.mixer, each.config.num_heads, each.config.embed_dim, each.config.window_size)
        for each in loaded
    ]
    if shapes[0] != shapes[1]:
        return ""
    return f"{first} and {second} have one seed ({loaded[0].seed}) and one shape, and no start that says otherwise"


def check_starts(paths: Sequence[Path | str], *, allowed: bool = False) -> str:
    """What any two of several models share of their start; ValueError, with the next step, unless that is `allowed`."""
    found = [words for one, other in combinations(paths, 2) if (words := shared_start(one, other))]
    if found and not allowed:
        raise ValueError(
            f"{found[0]}: heads that are alike may be alike because of it; train one with another seed, or give "
            "--shared_start true to see them all the same"
        )
    return "; ".join(found)
