"""What is installed: versions without known holes, and CI's by their hashes, as the constraints say."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]


def pinned(file):
    return dict(
        re.findall(r"^([\w.-]+)==([\w.+-]+)", (ROOT / file).read_text().replace("_", "-").lower(), re.MULTILINE)
    )


def test_bounds_leave_out_the_versions_with_known_holes():
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = {need.name: need.specifier for need in map(Requirement, needs)}
    for bad in ("2.6.2", "2.6.3"):
        assert Version(bad) not in bounds["lightning"]
    assert Version("12.3.0") not in bounds["pillow"]
    assert Version(version("lightning")) in bounds["lightning"]
    assert Version(version("pillow")) in bounds["pillow"]


def test_cis_hashes_are_of_the_constraints_versions():
    hashed, wanted = pinned(".ci/requirements.txt"), pinned("constraints.txt")
    lines = (ROOT / ".ci/requirements.txt").read_text().splitlines()
    assert all(re.fullmatch(r"\S+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)
    assert {name: hashed.get(name) for name in wanted if name != "labml-nn"} == {
        name: number for name, number in wanted.items() if name != "labml-nn"
    }
