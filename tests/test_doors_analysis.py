"""The door for analyses: a module of another package becomes a command and a page by its entry point alone."""

import json
import os
import time
from pathlib import Path

import pytest
from installed import install
from streamlit.testing.v1 import AppTest

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import load_data
from aft_lens.models import create_model
from app import commands, loaders
from app.back import shelf
from app.back.link import LINK
from app.cli import main
from app.places import JOBS_VARIABLE, ROOTS_VARIABLE

MAIN = Path(__file__).parents[1] / "app" / "main.py"


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


@pytest.fixture
def found_by_processes(tmp_path, monkeypatch):
    """The same for processes: what computes for pages imports by itself."""
    package = tmp_path / "packages"
    point = package / "mirror-1.dist-info" / "entry_points.txt"
    point.parent.mkdir(parents=True)
    point.write_text("[aft_lens.analyses]\nmirror = doors.analysis\n")
    (point.parent / "METADATA").write_text("Metadata-Version: 2.1\nName: mirror\nVersion: 1\n")
    paths = [str(package), str(Path(__file__).parent), str(MAIN.parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    LINK.stop()
    loaders.HELD.clear()
    yield
    LINK.stop()
    loaders.HELD.clear()


@pytest.mark.filterwarnings("default")
def test_it_has_a_page(installed, found_by_processes, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path / "jobs"))
    shelf.folder.cache_clear()
    assert commands.pages() == ["locality", "knockout", "mirror"]
    test = AppTest.from_file(str(MAIN), default_timeout=120)
    test.query_params["analysis"] = "mirror"
    test.switch_page("screens/analyses.py").run()
    end = time.monotonic() + 180
    while not test.table and time.monotonic() < end:
        time.sleep(0.2)
        test.run()
    shelf.folder.cache_clear()
    assert not test.exception
    assert not test.error
    assert test.get("plotly_chart")
    assert "largest" in test.table[0].value.columns
    assert f"aft-lens mirror {checkpoint}" in [block.value for block in test.code]


def test_an_unknown_command_is_refused_with_the_added_one_named(installed, capsys):
    assert main(["weakest"]) == 2
    assert "mirror" in capsys.readouterr().err
