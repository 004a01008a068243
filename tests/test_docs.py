"""README, guide, reference and notebooks: short enough, whole, and at work."""

import copy
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

import aft_lens

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
WORDS = 1200
"""The README's at most, code included."""


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_are_there(page):
    targets = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_the_changelog_ends_in_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert first
    assert first[1] == aft_lens.__version__


def test_the_reference_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "site" / "reference" / "front_door" / "index.html").read_text(encoding="utf-8")
    documented = {place.partition(":")[2] for place in aft_lens.PLACES.values()} - {"list_models", "aft_conv"}
    for name in documented:  # those two are on the pages of models and operators
        assert re.search(rf'id="[\w.]+\.{name}"', page), name
    assert "Replace one head" in page


@pytest.mark.parametrize("extra", ["analyses", "app", "vits", "export"])
def test_extras_the_readme_names_exist(extra):
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert f"'.[{extra}]'" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert known[extra]


def test_every_page_is_in_the_navigation():
    named = set(re.findall(r"[\w/]+\.(?:md|ipynb)", yaml.safe_dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text()))))
    there = {str(path.relative_to(ROOT / "docs")) for path in (*(ROOT / "docs").rglob("*.md"), *NOTEBOOKS)}
    assert there == named


def test_there_are_notebooks_of_every_kind():
    assert {path.stem for path in NOTEBOOKS} >= {"browse", "compare", "prune"}
    assert len(nbformat.read(ROOT / "docs" / "notebooks" / "compare.ipynb", 4).cells) <= 15


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_results_show_themselves(path, tmp_path):
    kept = nbformat.read(path, 4)
    fresh = copy.deepcopy(kept)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(fresh, timeout=300, kernel_name="python3", resources=where).execute()
    for old, new in zip(kept.cells, fresh.cells, strict=True):
        shown = [output for output in new.get("outputs", ()) if output.get("name") != "stderr"]
        assert [output.output_type for output in old.get("outputs", ())] == [output.output_type for output in shown]
        ends_in_a_value = new.cell_type == "code" and "import shutil" not in new.source
        assert not ends_in_a_value or shown, new.source
        text = "".join(str(output.get("data", {}).get("text/plain", "")) for output in shown)
        assert len(text) < 1500, f"{new.source} prints {len(text)} characters"
        assert "/site-packages/" not in str(old.get("outputs"))
