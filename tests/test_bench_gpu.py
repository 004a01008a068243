"""`aft-lens bench gpu`: what it says without a GPU or libraries for figures, and its operators on a line."""

import subprocess
import sys

import pytest
import torch

from analyses.bench.gpu import line, run
from analyses.bench.gpu.record import record_name


def test_it_says_that_it_needs_a_gpu(tmp_path):
    if torch.cuda.is_available():
        run.command(tmp_path, quick=True)
        assert (tmp_path / f"{record_name(torch.cuda.get_device_name())}.json").is_file()
    else:
        with pytest.raises(ValueError, match="CUDA"):
            run.command(tmp_path)


def test_a_machine_without_plotly_keeps_the_record_and_says_how_to_draw_it(tmp_path, monkeypatch, capsys):
    for name in ("result", "page"):
        monkeypatch.delitem(sys.modules, f"analyses.bench.gpu.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "plotly.subplots", None)
    run.show("gpu", tmp_path)
    assert "aft-lens bench gpu_table" in capsys.readouterr().out


def test_measuring_asks_for_no_plotly():
    """In a process of its own, as others have loaded it here."""
    code = "import sys; sys.modules['plotly'] = None; from analyses.bench.gpu import run"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_operators_on_a_line_are_held_to_their_reference():
    torch.manual_seed(0)
    for name in line.OPERATORS:
        tensors = line.inputs(name, (2, 40, 12), 3, lambda *shape: torch.randn(*shape).bfloat16())
        error = line.error(name, 5, tensors)
        assert (error is None) == (name == "sdpa_causal")
        assert line.OPERATORS[name](5, *tensors).isfinite().all()
        assert error is None or error < 4e-3, name  # bfloat16 keeps eight bits of the output


@pytest.mark.parametrize(
    ("hardware", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "gpu_h100"),
        ("NVIDIA H200", "gpu_h200"),
        ("NVIDIA A100-SXM4-80GB", "gpu_a100"),
        ("NVIDIA L40S", "gpu_l40s"),
        ("NVIDIA GeForce RTX 4090", "gpu_rtx_4090"),
    ],
)
def test_a_record_is_named_by_its_gpu(hardware, name):
    assert record_name(hardware) == name
