"""The door for analyses: a module of another package becomes a command and a page by its entry point alone."""

import importlib.metadata
import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from aft_lens import registry
from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import load_data
from aft_lens.models import create_model
from app import commands
from app.cli import main
from app.serve import ROOTS_VARIABLE

SCREEN = Path(__file__).parents[1] / "app" / "screens" / "analyses.py"


@pytest.fixture
def checkpoint(tmp_path):
    model = create_model("aft_conv_digits", depth=1, embed_dim=16, num_heads=2)
    return save_checkpoint(tmp_path / "c", model, data=load_data("digits").record(), recipe={}, seed=0, metrics=[])


@pytest.fixture
def installed(monkeypatch):
    """tests/doors/analysis.py as if a package had it, found as entry points are."""
    point = EntryPoint("strongest", "doors.analysis", "aft_lens.analyses")

    def found(*, group, name="strongest"):
        if group != point.group:
            return importlib.metadata.entry_points(group=group)
        return [point] if name == point.name else []

    monkeypatch.setattr(registry, "entry_points", found)


def test_it_is_a_command(installed, checkpoint, tmp_path, capsys):
    assert main([]) == 0
    assert "  strongest " in capsys.readouterr().out
    out = tmp_path / "an out"
    assert main(["strongest", str(checkpoint), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {out / 'strongest.svg'}" in printed
    record = json.loads((out / "strongest.json").read_text())
    assert record["command"] == f"aft-lens strongest {checkpoint} --out '{out}'"
    assert len(record["strongest"]) == 1


@pytest.mark.filterwarnings("default")
def test_it_has_a_page(installed, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    assert commands.pages() == ["locality", "strongest"]
    test = AppTest.from_file(str(SCREEN), default_timeout=120)
    test.query_params["analysis"] = "strongest"
    test.run()
    assert not test.exception
    assert not test.error
    assert test.selectbox(key="analysis").value == "strongest"
    assert test.get("plotly_chart")
    assert "strongest" in test.table[0].value.columns
    assert test.code[-1].value == f"aft-lens strongest {checkpoint}"


def test_an_unknown_command_is_refused_with_the_added_one_named(installed, capsys):
    assert main(["weakest"]) == 2
    assert "strongest" in capsys.readouterr().err
