"""The demo from training to report, on recipes cut short."""

import json
import re

import pytest

from app import cli, demo, serve

pytestmark = [
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec.:FutureWarning"),  # Lightning with this torch
    pytest.mark.filterwarnings("ignore::lightning.pytorch.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*hardening to one position:UserWarning"),  # four batches are no training
]


@pytest.fixture
def short_recipes(monkeypatch):
    """The shipped recipes with two blocks and a few batches of one epoch."""
    short = ("model.depth=2", "model.embed_dim=16", "trainer.epochs=1", "trainer.limit_batches=4")
    shipped = demo.read_recipe
    monkeypatch.setattr(demo, "read_recipe", lambda name, *changes: shipped(name, *changes, *short))


def test_demo_without_serving(short_recipes, tmp_path, capsys):
    out, shipped = tmp_path / "demo", tmp_path / "none"
    (out / "checkpoints" / demo.FIRST).mkdir(parents=True)  # of an earlier demo
    assert cli.main(["demo", "--no-serve", "--out", str(out), "--shipped", str(shipped)]) == 0
    printed = capsys.readouterr().out
    for name in ("parent", "masked", "indexed"):
        assert re.search(rf"^ *{name} ", printed, re.M)
    parity = float(printed.rsplit("indexed model ", 1)[1].split()[0])
    assert parity <= demo.PARITY
    assert f"Report: {out / 'index.html'}" in printed
    page = (out / "index.html").read_text()
    for name in (demo.FIRST, *demo.OTHERS):
        assert name in page
        assert (out / "checkpoints" / name / "model.safetensors").is_file()
    assert "<script src" not in page
    for folder in ("bias/digits-single", "attention", "ladder/digits-single"):
        for end in ("png", "svg", "json"):
            assert list((out / folder).glob(f"*.{end}")), (folder, end)
    record = json.loads((out / "ladder" / "digits-single" / "ladder.json").read_text())
    assert record["max_abs_logit_difference"] <= demo.PARITY


def test_demo_serves_what_it_made(tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr(serve, "command", lambda root, port: served.append((root, port)))
    monkeypatch.setattr(demo, "run", lambda *_: demo.Result(tmp_path / "index.html", {"x": Ladder(1e-6)}, 1.0))
    assert cli.main(["demo", "--out", str(tmp_path), "--shipped", str(tmp_path), "--port", "0"]) == 0
    assert served == [([tmp_path / "checkpoints", tmp_path], 0)]


def test_demo_fails_without_parity(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "run", lambda *_: demo.Result(tmp_path / "index.html", {"x": Ladder(1e-3)}, 1.0))
    assert cli.main(["demo", "--no-serve"]) == 2
    assert "must agree to 1e-05" in capsys.readouterr().err


def test_serve_says_what_is_wrong(tmp_path, capsys):
    assert cli.main(["app", "--root", f"[{tmp_path / 'gone'}]"]) == 2
    assert cli.main(["app", "--root", str(tmp_path / "gone")]) == 2
    assert "must be existing folders" in capsys.readouterr().err


class Ladder:
    """A ladder with nothing but its parity."""

    def __init__(self, difference):
        self.max_logit_difference = difference
