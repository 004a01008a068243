"""Compiling block by block: what is compiled how often, and that compiled models compute and are named as before."""

import json
import subprocess
import sys

import compile_worker
import pytest


@pytest.fixture(scope="module")
def found():
    done = subprocess.run([sys.executable, compile_worker.__file__], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_blocks_of_one_shape_share_one_graph(found):
    for depth in (2, 4):
        case = found["blocks"][f"{depth} 0.0"]
        assert (case["training"], case["evaluation"]) == (1, 1)


def test_every_rate_of_stochastic_depth_is_compiled(found):
    case = found["blocks"]["4 0.1"]
    assert (case["training"], case["evaluation"]) == (4, 1)


def test_compiled_models_compute_and_are_named_as_before(found):
    for case in found["blocks"].values():
        assert case["same_names"]
        assert case["error"] < 1e-6


def test_a_scheduled_temperature_is_followed_without_compiling_again(found):
    case = found["temperatures"]
    assert case["graphs"] == [1, 1, 1]
    assert case["error"] < 1e-6
    assert case["change"] > 1e-3


def test_only_exporting_is_exporting(found):
    assert found["exporting"] == {"called": 0.0, "compiled": 0.0, "strict 0": 1.0, "strict 1": 1.0}
