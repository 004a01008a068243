"""Two models beside each other."""

from dataclasses import replace
from typing import Any

import torch

from aft_lens.checkpoint import load_checkpoint
from analyses.field import Field, Fields, receptive_fields
from analyses.latency import noise_input, time_pair
from analyses.locality import Locality
from analyses.locality.metrics import head_locality
from analyses.match import Match
from analyses.match.heads import common_frame, shaped_heads
from analyses.match.matching import match as matched
from analyses.offset_maps import OffsetMaps, attention_offsets, bias_offsets, redraw
from app.back import lines, opened, reads
from app.back.work import Tell, finish, shown, telling


def latency(tell: Tell, place: str, first: str, second: str, batch: int) -> None:
    """Two checkpoints timed in turn."""
    torch.set_num_threads(1)
    with telling(tell):
        result = time_pair([noise_input(first, batch), noise_input(second, batch)])
    medians = [one.quartiles[1] for one in (result.first, result.second)]
    content = {"sources": [first, second], "verdict": result.verdict, "refused": bool(result.refusal),
               "others": result.others, "medians": medians}  # fmt: skip
    finish(tell, place, result, {**shown(result), **content}, lines.latency(first, second, batch))


def locality(tell: Tell, place: str, sources: list[list[str]], data: str, images: int) -> None:
    """How local the heads of models are, each beside its random weights."""
    found = []
    for number, (source, revision) in enumerate(sources):
        with telling(tell, number / len(sources), (number + 1) / len(sources)):
            for control in (False, True):
                maps = _offsets(source, revision, data, images, control=control, resamples=50)
                if maps is not None:
                    found.append(head_locality(maps))
    result = Locality(tuple(found), 1.5, "apart", False, 50, 0)
    made = lines.locality([source for source, _ in sources], data, images)
    finish(tell, place, result, shown(result), made)


def match(
    tell: Tell, place: str, first: list[str], second: list[str], data: str, images: int, draws: int, measures: list[str]
) -> None:
    """Heads of two models paired by where they look, and how alike pairs are by chance."""
    maps = [_offsets(source, revision, data, images) for source, revision in (first, second)]
    assert maps[0] is not None
    assert maps[1] is not None
    frame = common_frame(maps[0], maps[1])
    a, b = (shaped_heads(one, frame) for one in maps if one is not None)
    found = []
    for number, measure in enumerate(measures):
        with telling(tell, number / len(measures), (number + 1) / len(measures)):
            found.append(matched(a, b, measure, draws=draws))
    result = Match(a, b, frame, "crop", tuple(found), 0)
    pairs = [[*a.places[i], *b.places[j], score] for (i, j), score in zip(found[0].pairs, found[0].scores)]
    made = lines.match(first[0], second[0], data, images, draws, measures)
    finish(tell, place, result, {**shown(result), "pairs": pairs}, made)


def field(tell: Tell, place: str, sources: list[list[str]], data: str, images: int) -> None:
    """How far an output token of models sees, block by block."""
    found = []
    for number, (source, revision) in enumerate(sources):
        held = opened.images_for(source, revision, data)
        model: Any = (
            opened.checkpoint(source, revision).model if opened.own(source) else opened.reader(source, revision)
        )
        with telling(tell, number / len(sources), (number + 1) / len(sources)):
            shares, target = receptive_fields(model, reads.some(source, revision, data, images), progress=True)
        found.append(Field(opened.label(source), shares, target, held.name))
    result = Fields(tuple(found), min(one.shares.shape[1] for one in found))
    finish(tell, place, result, shown(result), lines.field([source for source, _ in sources], data, images))


def _offsets(
    source: str, revision: str, data: str, images: int, *, control: bool = False, resamples: int = 0
) -> OffsetMaps | None:
    """Where a model's heads look by offset; None for the random control of another library's ViT."""
    label = opened.label(source)
    if opened.own(source):
        found = load_checkpoint(source)
        if found.config.traits.weights != "attention":
            if control:
                redraw(found.model, 0)
            return replace(bias_offsets(found.model, label), control=control)
    if control:
        return None
    reader = opened.reader(source, revision)
    name = opened.images_for(source, revision, data).name
    maps = attention_offsets(reader, images=images, data=name, resamples=resamples, seed=0, progress=True)
    return replace(maps, label=label)
