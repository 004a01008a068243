"""`import aft_lens`: what it costs, and what its names stand for."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

import aft_lens

PACKAGE = Path(aft_lens.__file__).parent


def seconds(*words):
    """The quickest of three fresh processes."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


def test_starting_takes_a_part_of_what_pytorch_takes():
    """Held against `import torch` on the same machine: 1.5 s of help, 0.3 s of import where that takes 2.3 s."""
    bare, torch = seconds("-c", ""), seconds("-c", "import torch") - seconds("-c", "")
    assert seconds("-c", "import aft_lens") - bare < 0.13 * torch
    for word in ("--help", "--version"):
        assert seconds("-m", "app.cli", word) - bare < 0.65 * torch


def test_importing_it_brings_neither_pytorch_nor_figures():
    code = "import sys, aft_lens; print({'torch', 'lightning', 'matplotlib', 'analyses'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", aft_lens.PLACES)
def test_every_name_is_there_and_explained(name):
    found = getattr(aft_lens, name)
    assert found.__doc__
    assert name in dir(aft_lens)
    assert name in aft_lens.__all__


def test_type_checkers_see_the_same_names():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    imported = {
        alias.asname: f"{node.module}:{alias.name}"
        for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }  # fmt: skip
    assert imported == aft_lens.PLACES


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = aft_lens.lode
