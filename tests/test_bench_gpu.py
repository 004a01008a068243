"""`aft-lens bench gpu`: its ratios, and what it says without a GPU."""

import pytest
import torch

from analyses.bench import gpu, gpu_causal


def row(operator, side, forward, train=None, heads=0, window=0):
    found = {"operator": operator, "grid": [side, side], "heads": heads, "window": window}
    found["forward_us"] = {"median": forward}
    return found | ({"train_us": {"median": train}} if train else {})


def test_ratios_are_ours_over_theirs():
    rows = [
        row("sdpa", 14, 80.0, 400.0),
        row("sdpa", 56, 500.0),
        row("aft_conv", 14, 100.0, 300.0, heads=32, window=11),
        row("aft_conv", 14, 20.0, heads=32, window=3),
        row("aft_conv", 28, 50.0, heads=32, window=11),
        row("aft_conv", 56, 125.0, heads=32, window=11),
        row("aft_conv", 112, 60.0, heads=32, window=11),
        row("floor", 14, 50.0, 140.0, heads=384, window=11),
        row("indexed", 14, 60.0, 175.0, heads=384, window=11),
    ]
    models = {
        "deit_small": {"inference": 100.0, "training": 50.0, "peak_gib": 8.0},
        "aft_conv_small_11_32": {"inference": 110.0, "training": 60.0, "peak_gib": 6.0},
        "deit_small_56": {"inference": 10.0, "training": 5.0, "peak_gib": 8.0},
        "aft_conv_small_11_32_56": {"inference": 20.0, "training": 15.0, "peak_gib": 6.0},
    }
    assert gpu.ratios(rows, models) == pytest.approx(
        {
            "conv_h32_forward": 1.25, "conv_h32_train": 0.75, "indexed_forward": 1.2, "indexed_train": 1.25,
            "conv_56_forward": 0.25, "per_token_growth": 1.2, "model_inference": 1.1, "model_train": 1.2,
            "model_train_memory": 0.75,
            "model_56_inference": 2.0, "model_56_train": 3.0,
        }
    )  # fmt: skip


def test_it_says_that_it_needs_a_gpu(tmp_path):
    if torch.cuda.is_available():
        gpu.command(tmp_path, quick=True)
        assert (tmp_path / "gpu_h100.json").is_file()
    else:
        with pytest.raises(ValueError, match="CUDA"):
            gpu.command(tmp_path)


def test_operators_on_a_line_are_held_to_their_reference():
    torch.manual_seed(0)
    for name in gpu_causal.OPERATORS:
        tensors = gpu_causal.inputs(name, (2, 40, 12), 3, lambda *shape: torch.randn(*shape).bfloat16())
        error = gpu_causal.error(name, 5, tensors)
        assert (error is None) == (name == "sdpa_causal")
        assert gpu_causal.OPERATORS[name](5, *tensors).isfinite().all()
        assert error is None or error < 4e-3, name  # bfloat16 keeps eight bits of the output
