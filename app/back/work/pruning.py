"""Accuracy, and what pruning makes of it."""

from typing import Any

import torch

from aft_lens.errors import markless
from aft_lens.training.evaluation import evaluate as evaluated
from analyses.pruning import prune_to_indexing
from analyses.pruning.curve import PruneCurve, prune_curve
from analyses.result import plain
from app.back import lines, opened, reads
from app.back.lines import CALIBRATION
from app.back.work import Tell, counted, finish, shown, telling


def evaluate(tell: Tell, place: str, source: str, revision: str, images: int) -> None:
    """Accuracy of a checkpoint on test images with its interval, and by class."""
    held = counted(source, revision)
    with telling(tell):
        found = evaluated(
            opened.checkpoint(source, revision).model, _first(held.test, images), [*held.classes], progress=True
        )
    content = {
        "images": found.images, "accuracy": found.accuracy, "interval": list(found.accuracy_interval),
        "loss": found.loss, "by_class": [[markless(name), count, share] for name, count, share in found.by_class],
        "data": held.name,
    }  # fmt: skip
    finish(tell, place, None, content, lines.evaluate(source, images))


def curve(
    tell: Tell, place: str, source: str, revision: str, criteria: list[str], keeps: list[int], images: int
) -> None:
    """Accuracy against offsets kept, a point after the other."""
    held = counted(source, revision)
    test = reads.some(source, revision, "", images)
    calibration = reads.some(source, revision, "", CALIBRATION, "val")
    total = len(criteria) * len(keeps)

    def each(found: PruneCurve) -> None:
        done = len(found.points)
        if done < total:
            tell(done / total * 0.99, f"{done} of {total} points", shown(found))

    result = prune_curve(
        opened.checkpoint(source, revision).model, test, calibration, criteria=criteria, keeps=keeps,
        source=opened.label(source), data=held.name, each=each,
    )  # fmt: skip
    finish(tell, place, result, shown(result), lines.curve(source, criteria, keeps, images))


def prune(tell: Tell, place: str, source: str, revision: str, criterion: str, keep: int, images: int) -> None:
    """Parent, masked and indexed model at one k: accuracy, parity, size and kept offsets; nothing is timed."""
    counted(source, revision)
    tell(0.1, "scoring offsets and measuring", None)
    result = prune_to_indexing(
        opened.checkpoint(source, revision).model, reads.some(source, revision, "", images), keep,
        criterion=criterion, calibration=reads.some(source, revision, "", CALIBRATION, "val"), batch_sizes=(),
    )  # fmt: skip
    rows = [plain(row) for row in result.rows]
    content = {
        "rows": rows,
        "offsets": result.offsets(),
        "images": result.images,
        "parity": result.max_logit_difference,
    }
    finish(tell, place, result, {**shown(result), **content}, lines.prune(source, criterion, keep, images))


def _first(split: Any, images: int) -> Any:
    return torch.utils.data.Subset(split, range(min(images, len(split))))
