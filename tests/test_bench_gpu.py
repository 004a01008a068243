"""`aft-lens bench gpu`: what it says without a GPU or libraries for figures, and its operators on a line."""

import math
import subprocess
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend
from torch.nn.attention.flex_attention import flex_attention

from aft_lens.ops import reference
from analyses.bench.gpu import contestants, counters, line, run
from analyses.bench.gpu.operators import BACKENDS, FORMS, OPERATORS, backend
from analyses.bench.gpu.record import WORDS, record_name


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


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", FORMS)
def test_aft_conv_of_pytorchs_own_parts_is_aft_conv(name, monkeypatch):
    monkeypatch.setattr(contestants, "_flex", lambda: flex_attention)  # compiling it takes longer than all else here
    torch.manual_seed(0)
    query, value = torch.randn(2, 2, 3, 3, 5, 4).unbind()
    tensors = [query, torch.randn(2, 3, 5, 4), value, torch.randn(3, 5, 5)]
    found, right = (run(*tensors) for run in (getattr(contestants, name), reference.aft_conv))
    torch.testing.assert_close(found, right.float(), rtol=1e-4, atol=1e-5)
    if name == "flex":  # on a CPU it has no backward pass
        return
    for tensor in tensors:
        tensor.requires_grad_()
    upstream = torch.randn_like(right)
    ours, theirs = (
        torch.autograd.grad(run(*tensors).double(), tensors, upstream)
        for run in (getattr(contestants, name), reference.aft_conv)
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_backends_of_attention_are_named(monkeypatch):
    query, key, value = torch.randn(3, 1, 2, 4, 16).unbind()
    assert BACKENDS["sdpa"](query, key, value) in {backend.lower() for backend in SDPBackend.__members__}
    grid = torch.randn(1, 2, 16, 2, 2)
    assert BACKENDS["masked"](grid, torch.randn(1, 2, 2, 2), grid, torch.randn(2, 3, 3)) == "math"
    assert backend("flex", [query, key, value]) is None
    monkeypatch.setitem(BACKENDS, "sdpa", lambda query, *rest: "math" if query.requires_grad else "cudnn_attention")
    assert backend("sdpa", [query, key, value]) == "cudnn_attention, trained math"
    right = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(contestants.pinned(SDPBackend.MATH)(query, key, value), right)


def test_every_operator_has_words_and_every_contestant_is_measured():
    assert set(OPERATORS) <= set(WORDS)
    measured = {name for case in run.CASES for name in case.operators}
    assert set(OPERATORS) - measured == set()


def test_a_contestant_that_does_not_run_is_named_and_the_others_are_measured(monkeypatch, capsys):
    def measured(case, name):
        if name == "flex":
            raise RuntimeError("no kernel image\nmore of it")
        return name

    monkeypatch.setattr(run, "operator_row", measured)
    monkeypatch.setattr(run, "_line", str)
    case = run.Case(1, (14, 14), 32, 11, FORMS)
    assert run.operator_rows(case) == (
        ["masked", "depthwise"],
        ["AFT-conv by FlexAttention, 32 heads: no kernel image"],
    )
    assert "not measured: AFT-conv by FlexAttention" in capsys.readouterr().out


def test_an_operator_of_ours_that_fails_ends_the_run(monkeypatch):
    def failing(case, name):
        raise RuntimeError("ours")

    monkeypatch.setattr(run, "operator_row", failing)
    case = run.Case(1, (14, 14), 32, 11, ("aft_conv",))
    with pytest.raises(RuntimeError, match="ours"):
        run.operator_rows(case)


def test_counters_are_read_from_what_the_profiler_prints(tmp_path, monkeypatch):
    head = ["ID", "Kernel Name", *counters.METRICS.values()]
    lines = [
        ["==PROF== Connected"], head, ["", "", "ns", "%", "%", "%", "%", "register/thread"],
        ["0", "expand_kernel(long *, int)", "20,100", "5.5", "0", "80.2", "50", "56"],
        ["1", "forward_kernel", "87000", "28.1", "27", "27", "12", "255"],
    ]  # fmt: skip
    printed = "\n".join(",".join(f'"{cell}"' for cell in each) if len(each) > 1 else each[0] for each in lines)
    rows = counters.read_rows(printed, counters.CASES[0])
    assert [row.kernel for row in rows] == ["expand_kernel", "forward_kernel"]
    assert (rows[0].microseconds, rows[0].memory, rows[1].registers) == (20.1, 5.5, 255)
    assert counters.table(rows).rows[1] == ["32", "14 × 14", "forward_kernel", "87.0", "28", "27", "27", "12", "255"]
    assert math.isnan(counters.read_rows(printed.replace('"255"', '"n/a"'), counters.CASES[0])[1].registers)
    with pytest.raises(ValueError, match="ncu has no launch__registers_per_thread on this GPU"):
        counters.read_rows(printed.replace("launch__registers", "registers"), counters.CASES[0])
    with pytest.raises(ValueError, match="ncu printed no table: ==ERROR=="):
        counters.read_rows("==ERROR== no permission", counters.CASES[0])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="counters need a CUDA device and Nsight Compute's ncu"):
        counters.command(tmp_path)
