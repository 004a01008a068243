"""CONTRIBUTING's examples of what others add are the files that the tests of the doors run, to the letter."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "tests" / "doors").glob("[!_]*.py"))
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_is_shown_whole(file):
    assert file.read_text(encoding="utf-8") in BLOCKS


def test_every_door_has_an_example():
    assert {file.stem for file in EXAMPLES} == {"analysis", "criterion", "dataset", "mixer", "vit_adapter"}
