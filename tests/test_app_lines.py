"""The Python beside each figure makes that figure: it is run, and its numbers are those of the page."""

import json
from pathlib import Path

import numpy as np
import pytest
from test_app import SHIPPED, jobs

from analyses.result import plain
from app.back import lines
from app.back.jobs import KINDS
from app.back.zygote import called

__all__ = ["jobs"]
CONV, VIT = str(SHIPPED / "digits-conv"), str(SHIPPED / "digits-vit")
OTHER = {"source", "model", "data", "versions", "hardware", "name", "label", "sources", "classes"}
"""What a record says beside its numbers."""
IMAGE = {"sample": 3}
JOBS = {
    "bias": {"source": CONV},
    "attention": {"source": VIT, "data": "", "images": 16},
    "keys": {"source": CONV, "image": IMAGE},
    "attend": {"source": VIT, "data": "", "image": IMAGE, "target": [3, 4]},
    "curve": {"source": CONV, "criteria": ["magnitude"], "keeps": [1], "images": 32},
    "prune": {"source": CONV, "criterion": "taylor", "keep": 2, "images": 32},
    "knockout": {"source": CONV, "data": "", "images": 32, "layer": 1, "head": 2, "offset": [0, 1]},
    "match": {"first": [CONV, ""], "second": [VIT, ""], "data": "", "images": 16, "draws": 9,
              "measures": ["correlation"]},
    "locality": {"sources": [[CONV, ""]], "data": "", "images": 16},
    "learned": {"source": CONV},
    "qk": {"source": VIT, "data": "", "images": 8},
    "field": {"sources": [[CONV, ""]], "data": "", "images": 2},
    "attributions": {"source": CONV, "images": 2},
    "decoder_biases": {"source": str(SHIPPED / "digits-pixels-aft-local")},
}  # fmt: skip


def numbers(value):
    """All numbers of a record, in order."""
    if isinstance(value, dict):
        return [one for key, each in value.items() if key not in OTHER for one in numbers(each)]
    if isinstance(value, list):
        return [one for each in value for one in numbers(each)]
    return [float(value)] if isinstance(value, int | float) else []


@pytest.mark.parametrize("kind", JOBS)
def test_the_python_beside_a_figure_makes_it(kind, monkeypatch, tmp_path):
    monkeypatch.setattr("analyses.result.Result.save", lambda self, out: [])  # files are not the point
    told = []
    revision = {} if kind in ("match", "locality", "field") else {"revision": ""}
    called(f"work.{KINDS[kind]}:{kind}")(
        tell=lambda share, words, content: told.append(content), place=str(tmp_path / "one"), **JOBS[kind], **revision
    )
    content = told[-1]
    names = {}
    exec(content["python"], names)
    found, shown = numbers(plain(names["result"].record())), numbers(json.loads(json.dumps(content["record"])))
    assert len(found) > 2
    np.testing.assert_allclose(found, shown, rtol=1e-4, atol=1e-6)


def test_every_kind_of_job_but_a_survey_says_how_it_is_made():
    assert {kind for kind in KINDS if not hasattr(lines, kind)} == {"survey"}


def test_an_upload_and_another_librarys_vit_have_lines_that_are_python():
    upload = {"upload": b"", "invert": True}
    for command, python in (
        lines.keys(CONV, upload), lines.attend("timm:vit_tiny_patch16_224", "images:photos", {"sample": 2}, None),
        lines.attend(CONV, "", {"upload": b""}, [1, 2]), lines.explain("timm:x", "digits", 8),
        lines.transfer(VIT, "digits-conv"), lines.completions(CONV, 8, 0.5, 1.0, 3), lines.evaluate(CONV, 100),
        lines.latency(CONV, VIT, 64), lines.show("locality", CONV), lines.costs(CONV, 100),
        lines.attribution(CONV, IMAGE),
    ):  # fmt: skip
        compile(python, "lines", "exec")
        assert not command or command[0] == "aft-lens"
        assert str(Path(SHIPPED)) not in python  # those that ship are taken by their names
