"""The door for analyses: a module of another package becomes a command and a page by its entry point alone."""

import json
from pathlib import Path

import pytest
from installed import install
from streamlit.testing.v1 import AppTest

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
    """tests/doors/analysis.py as if a package had it."""
    install(monkeypatch, "aft_lens.analyses", "mirror", "doors.analysis")


def test_it_is_a_command(installed, checkpoint, tmp_path, capsys):
    assert main([]) == 0
    assert "  mirror " in capsys.readouterr().out
    out = tmp_path / "an out"
    assert main(["mirror", str(checkpoint), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {out / 'mirror.svg'}" in printed
    record = json.loads((out / "mirror.json").read_text())
    assert record["command"] == f"aft-lens mirror {checkpoint} --out '{out}'"
    assert len(record["difference"]) == 1


@pytest.mark.filterwarnings("default")
def test_it_has_a_page(installed, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    assert commands.pages() == ["locality", "knockout", "mirror"]
    test = AppTest.from_file(str(SCREEN), default_timeout=120)
    test.query_params["analysis"] = "mirror"
    test.run()
    assert not test.exception
    assert not test.error
    assert test.selectbox(key="analysis").value == "mirror"
    assert test.get("plotly_chart")
    assert "largest" in test.table[0].value.columns
    assert test.code[-1].value == f"aft-lens mirror {checkpoint}"


def test_an_unknown_command_is_refused_with_the_added_one_named(installed, capsys):
    assert main(["weakest"]) == 2
    assert "mirror" in capsys.readouterr().err
