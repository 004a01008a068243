"""What further analyses show of one model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from aft_lens.errors import InputError
from aft_lens.extraction import AFTReader
from analyses.attribution import check_attributions
from analyses.explain import explain as explained
from analyses.explain import plan_for
from analyses.learned.evidence import LearnedEvidence, evidence
from analyses.qk import qk as split_qk
from analyses.transfer import summary
from analyses.transfer import target as transfer_target
from analyses.transfer import transfer as transferred
from app.back import lines, opened, reads
from app.back.work import Tell, check_labels, finish, shown, telling
from app.commands import command_module


def attribution(tell: Tell, place: str, source: str, revision: str, image: dict[str, Any]) -> None:
    """Integrated gradients of a prediction."""
    tell(0.2, "integrating gradients", None)
    finish(tell, place, None, reads.attribution(source, revision, "", image), lines.attribution(source, image))


def show(tell: Tell, place: str, name: str, source: str, revision: str) -> None:
    """What an analysis with a page shows of a checkpoint."""
    with telling(tell):
        result = command_module(name).show(Path(source))
    finish(tell, place, result, shown(result), lines.show(name, source))


def explain(tell: Tell, place: str, source: str, revision: str, data: str, images: int) -> None:
    """How far position explains a model's heads, and what replacing more and more of them costs."""
    held = opened.images_for(source, revision, data)
    reader = opened.reader(source, revision)
    test = reads.some(source, revision, data, images)
    calibration = reads.some(source, revision, data, images, "train")
    check_labels(test, held.name)
    plan = plan_for(reader, single=False, data=held.name)
    with telling(tell):
        found = explained(reader, calibration, test, plan=plan, progress=True)
    result = replace(found, source=opened.label(source))
    finish(tell, place, result, shown(result), lines.explain(source, data, images))


def learned(tell: Tell, place: str, source: str, revision: str) -> None:
    """How much of a model's maps training made, against where they started."""
    tell(0.2, "comparing with the start", None)
    found = opened.checkpoint(source, revision)
    if found.config.traits.weights != "offset":
        raise InputError(f"{Path(source).name} has no position biases by offset, so nothing of them is learned")
    result = LearnedEvidence((evidence(found, draws=200),), ())
    finish(tell, place, result, shown(result), lines.learned(source))


def qk(tell: Tell, place: str, source: str, revision: str, data: str, images: int) -> None:
    """How much of the logits of a ViT's heads is place, and how much content."""
    held = opened.images_for(source, revision, data)
    reader = opened.reader(source, revision)
    if isinstance(reader, AFTReader):
        raise InputError(f"{Path(source).name} has no queries and keys of its own a head; choose a ViT")
    with telling(tell):
        found = split_qk(reader, reads.some(source, revision, data, images), progress=True)
    result = replace(found, data=held.name, label=opened.label(source))
    finish(tell, place, result, shown(result), lines.qk(source, data, images))


def attributions(tell: Tell, place: str, source: str, revision: str, images: int) -> None:
    """Whether attributions of a model rest on its weights, and beat random pixels."""
    loaded = opened.checkpoint(source, revision)
    if not loaded.config.num_classes:
        raise InputError(f"{Path(source).name} has no classifier to attribute a class of; choose one that has")
    held = opened.data_of(source, revision)
    given = torch.cat([each for each, _ in reads.some(source, revision, "", images)])
    with telling(tell):
        found = check_attributions(loaded.model, given, cell=loaded.config.patch_size, progress=True)
    result = replace(found, source=opened.label(source), data=held.name)
    finish(tell, place, result, shown(result), lines.attributions(source, images))


def transfer(tell: Tell, place: str, source: str, revision: str, to: str) -> None:
    """Which weights the AFT-conv of a recipe would take from a ViT."""
    reader = opened.reader(source, revision)
    tell(0.2, "taking weights", None)
    config, _ = transfer_target(to, reader, None)
    table = summary(transferred(reader, config))
    content = {"table": {"columns": list(table.columns), "rows": [list(row) for row in table.rows], "title": "",
                         "note": ""}}  # fmt: skip
    finish(tell, place, None, content, lines.transfer(source, to))
