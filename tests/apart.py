"""Checks of a test file in a process of their own: types go unchecked there, and Triton reads its environment anew."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.version import Version


def run_apart(module: str, code: str, *, interpreted: bool) -> None:
    """Run code with the names of a test module; kernels in Triton's interpreter, or as they are."""
    if interpreted and Version(version("triton")) < Version("3.7") and Version(version("numpy")) >= Version("2.4"):
        pytest.skip("the interpreter of Triton before 3.7 does not work with NumPy from 2.4: install numpy<2.4")
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import *; torch.manual_seed(0); {code}"],
        env={**os.environ, "PYTHONWARNINGS": "ignore", "TRITON_INTERPRET": str(int(interpreted))},
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
