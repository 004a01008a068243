"""docs/results.md says what analyses/results/ says."""

import json
import re
from pathlib import Path

import pytest

from analyses.command import run
from analyses.provenance import PUBLISHED
from analyses.published import command, page
from analyses.published.sections import SECTIONS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "results.md"


def test_the_page_is_current(monkeypatch):
    monkeypatch.chdir(ROOT)
    command(check=True)


def test_every_record_is_on_it_and_every_picture_there():
    text = PAGE.read_text(encoding="utf-8")
    for file in PUBLISHED.glob("*.json"):
        assert f"`analyses/results/{file.name}`" in text
    for name in set(SECTIONS) & {file.stem for file in PUBLISHED.glob("*.json")}:
        assert f"## {SECTIONS[name].title}\n" in text
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert pictures
    assert all((PAGE.parent / picture).is_file() for picture in pictures)


def test_a_record_without_a_section_is_shown_by_its_rows(tmp_path):
    rows = [{"model": "vit", "seed": 0, "accuracy": 91.23456, "maps": [1, 2]}]
    record = {"command": "aft-lens x", "hardware": "a GPU", "versions": {"torch": "2"}, "method": "So.", "rows": rows}
    (tmp_path / "new_thing.json").write_text(json.dumps(record))
    (tmp_path / "other.json").write_text("{}")
    text = page(tmp_path)
    assert "## New thing" in text
    assert re.search(r"\| model +\| +seed \| +accuracy \|", text)
    assert re.search(r"\| vit +\| +0 \| +91\.23 \|", text)
    assert "`analyses/results/new_thing.json`: by `aft-lens x`, on a GPU, PyTorch 2. So." in text
    assert "`analyses/results/other.json`\n" in text


def test_a_stale_page_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"run `python -m analyses\.published`"):
        command(check=True)
    run(command, ("python", "-m", "analyses.published"), ["--out", "here.md"])
    run(command, ("python", "-m", "analyses.published"), ["--out", "here.md", "--check"])
    Path("here.md").write_text("else")
    with pytest.raises(ValueError, match="is not what"):
        run(command, ("python", "-m", "analyses.published"), ["--out", "here.md", "--check"])


def test_the_readme_says_what_the_records_of_cifar_say():
    words = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    learned, long = (json.loads((PUBLISHED / f"{name}.json").read_text()) for name in ("learned", "long_runs"))
    shipped = {row["checkpoint"]: row for row in learned["rows"]}
    assert f"correlation with the random start is {shipped['cifar10-conv']['start_correlation']:.2f}" in words
    assert all(row["start_correlation"] < 0.3 for row in learned["rows"] if row["start_correlation"] is not None)
    accuracy = {run["configuration"]: run["accuracy"] for run in long["runs"] if run["seed"] == 0}
    assert f"has {accuracy['conv']:.1f} % test accuracy, a ViT of its size {accuracy['vit']:.1f}" in words
    assert f"96 single positions a layer {accuracy['single-96']:.1f}" in words
    places = next(row for row in learned["agreements"] if row["null"] == "places")
    low, high = places["null_interval"]
    assert f"overlap by {places['overlap']:.2f}, by chance {places['null_mean']:.2f} [{low:.2f}, {high:.2f}]" in words
