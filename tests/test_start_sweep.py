"""The sweep of starts, with tiny models on digits, in this process."""

import json

import pytest
from lightning_advice import LIGHTNING_ADVICE

from aft_lens.checkpoint import load_checkpoint, read_first, read_metrics
from analyses.learned import start_sweep
from analyses.learned.measure import learned
from analyses.learned.start_sweep import Start, command, run
from analyses.provenance import RESULTS

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]


@pytest.fixture
def digits(monkeypatch):
    tiny = ("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "data.batch_size=500")
    monkeypatch.setitem(start_sweep.DATA, "digits", tiny)


def test_a_row_says_what_its_run_measured(digits, tmp_path):
    start = Start("digits", "single", 0.05, 3.0, seed=1, epochs=1)
    row = run(start, "data", tmp_path, "cpu")
    assert (row.start, row.scale, row.seed, len(row.nearness)) == (0.05, 3.0, 1, 1)
    kept = tmp_path / start.name
    assert row.val_accuracy == pytest.approx(100 * read_metrics(kept)[-1]["val_accuracy"])
    assert row.start_correlation == learned(load_checkpoint(kept).model, read_first(kept)).start_correlation
    recipe = load_checkpoint(kept).config
    assert (recipe.bias_start, recipe.position_bias) == (0.05, "single")


def test_the_sweep_goes_on_where_it_stopped(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(start_sweep, "STARTS", (1.0, 0.05))
    monkeypatch.setattr(start_sweep, "SCALES", (1.0,))
    monkeypatch.setattr(start_sweep, "CONFIGURATIONS", {"dense": ()})
    trained = []

    def counted(start, *given):
        trained.append(start)
        return run(start, *given)

    monkeypatch.setattr(start_sweep, "run", counted)
    options = {"out": tmp_path / "sweep", "epochs": 1, "accelerator": "cpu", "only": ("digits",), "workers": 0}
    command(**options, dense_seeds=1, result=tmp_path / "one.json")
    command(**options, dense_seeds=2, result=tmp_path / "two.json")
    assert [(start.start, start.seed) for start in trained] == [(1.0, 0), (0.05, 0), (1.0, 1), (0.05, 1)]
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert (one["planned"], two["planned"]) == (2, 4)
    assert two["rows"][:2] == one["rows"]


def test_the_published_sweep_shows_that_a_small_start_is_learned():
    rows = json.loads((RESULTS / "start_sweep.json").read_text())["rows"]
    for name in ("dense", "entropy"):
        by_start = {row["start"]: row for row in rows if row["configuration"] == name and row["scale"] == 1}
        assert by_start[0.05]["start_correlation"] < 0.3 < by_start[1]["start_correlation"]
        assert by_start[0.05]["val_accuracy"] > by_start[1]["val_accuracy"]
