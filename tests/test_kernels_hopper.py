"""The kernel for Hopper GPUs: when it is chosen, and that it compiles for them."""

from importlib import import_module

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from aft_lens.ops.kernels.dense import hopper
from aft_lens.ops.kernels.launch import Geometry

WHOLE = Geometry((14, 14), (11, 11))


@pytest.mark.parametrize(
    ("geometry", "c", "dtype", "capability", "taken"),
    [
        (WHOLE, 1, torch.bfloat16, (9, 0), True),
        (Geometry((16, 16), (3, 3)), 1, torch.float16, (9, 0), True),
        (Geometry((8, 16), (3, 3)), 1, torch.bfloat16, (9, 0), False),
        (WHOLE, 2, torch.bfloat16, (9, 0), False),
        (WHOLE, 1, torch.float32, (9, 0), False),
        (WHOLE, 1, torch.bfloat16, (8, 9), False),
        (WHOLE, 1, torch.bfloat16, (10, 0), False),
        (WHOLE, 1, torch.bfloat16, None, False),
    ],
)
def test_hopper_takes_16_bit_values_of_one_channel_on_grids_of_its_tile(
    monkeypatch, geometry, c, dtype, capability, taken
):
    monkeypatch.setattr(hopper, "forward_hopper_kernel", "kernel")
    monkeypatch.setattr(hopper, "capability", lambda device: capability)
    assert hopper.takes(geometry, c, dtype, torch.device("cuda")) is taken


def test_hopper_takes_nothing_without_gluon_or_a_gpu(monkeypatch):
    assert hopper.capability(torch.device("cpu")) is None
    monkeypatch.setattr(hopper, "capability", lambda device: (9, 0))
    monkeypatch.setattr(hopper, "forward_hopper_kernel", None)
    monkeypatch.setattr(hopper, "MISSING", "no gluon")
    with pytest.warns(UserWarning, match="no gluon"):
        assert not hopper.takes(WHOLE, 1, torch.bfloat16, torch.device("cuda"))
    assert not hopper.takes(WHOLE, 1, torch.bfloat16, torch.device("cuda"))  # and says so once


def test_rocm_counts_its_generations_by_itself(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert hopper.capability(torch.device("cuda")) is None


@pytest.mark.parametrize(("t", "keep"), [(196, True), (256, False)])
def test_hopper_kernel_compiles_without_a_gpu(t, keep):
    """In both ways to multiply, by the matrix instructions of a warpgroup."""
    source = pytest.importorskip("triton.experimental.gluon._runtime", reason="this Triton has no Gluon").GluonASTSource
    kernel = hopper.forward_hopper_kernel
    assert kernel is not None, hopper.MISSING
    known = {"T": t, "T_PAD": -(-t // 16) * 16, "BLOCK_B": 64, "B_STEPS": 4, "UNIT": 4}
    known |= {"HAS_QUERY": True, "HAS_BIAS": True, "KEEP": keep}
    wide = {"QB": "*fp32", "VB": "*fp32", "M": "*fp32"}
    kinds = {n: "i32" if n == "B" or "_" in n else wide.get(n, "*bf16") for n in kernel.arg_names}
    kinds |= dict.fromkeys(known, "constexpr")
    target = import_module("triton.backends.compiler").GPUTarget("cuda", 90, 32)
    options = {"num_warps": hopper.TILES.warps}
    compiled = import_module("triton").compile(source(kernel, kinds, known), target=target, options=options)
    assert "wgmma.mma_async.sync.aligned.m64n" in compiled.asm["ptx"]
