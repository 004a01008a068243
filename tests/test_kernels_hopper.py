"""The kernel for Hopper GPUs: when it is chosen, and on one of them its results."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from aft_lens.ops.kernels import hopper
from aft_lens.ops.kernels.dense import dense_forward, dense_inference
from aft_lens.ops.kernels.launch import Geometry
from aft_lens.ops.reference import aft_conv

H100 = torch.cuda.is_available() and hopper.capability(torch.device("cuda")) == (9, 0)
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
    assert not hopper.takes(WHOLE, 1, torch.bfloat16, torch.device("cuda"))


def test_rocm_counts_its_generations_by_itself(monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert hopper.capability(torch.device("cuda")) is None


@pytest.mark.skipif(not H100, reason="needs a Hopper GPU")
@pytest.mark.parametrize(
    ("b", "h", "grid", "dtype", "gated", "biased"),
    [
        (256, 384, (14, 14), torch.bfloat16, True, False),
        (77, 384, (14, 14), torch.bfloat16, True, True),
        (300, 6, (14, 14), torch.bfloat16, False, True),
        (1, 6, (14, 14), torch.bfloat16, False, False),
        (70, 6, (13, 16), torch.float16, True, True),
        (70, 6, (16, 16), torch.bfloat16, True, True),
        (70, 6, (3, 43), torch.bfloat16, True, False),
    ],
)
def test_hopper_kernel_equals_the_reference(b, h, grid, dtype, gated, biased):
    """Forward and every gradient; unwritten memory holds NaN meanwhile."""
    t = grid[0] * grid[1]
    assert hopper.takes(Geometry(grid, (11, 11)), 1, dtype, torch.device("cuda"))
    generator = torch.Generator("cuda").manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, device="cuda", generator=generator)

    query, value = (normal(h, 1, b, t).to(dtype).permute(2, 0, 1, 3) for _ in range(2))
    given = [
        query if gated else None, normal(h, b, t).to(dtype).transpose(0, 1), value, normal(h, 11, 11),
        normal(h) if biased and gated else None, normal(h) if biased else None,
    ]  # fmt: skip
    given = [x if x is None else x.requires_grad_() for x in given]
    double = [x if x is None else x.detach().double().requires_grad_() for x in given]
    q, k, v, w, qb, vb = double
    upstream = normal(b, h, 1, t).to(dtype)
    torch.use_deterministic_algorithms(True)
    mixed, *_ = dense_forward(*given, list(grid))
    mixed.backward(upstream)
    with torch.no_grad():
        unkept = dense_inference(*given, list(grid))
    torch.use_deterministic_algorithms(False)
    parts = []
    for head in range(0, h, 6):  # the reference holds every pair of positions at once
        own = slice(head, head + 6)
        part = aft_conv(None, k[:, own].unflatten(2, grid), v[:, own].unflatten(3, grid), w[own]).flatten(3)
        part = part if vb is None else part + vb[own].view(-1, 1, 1)
        if gated:
            part = part * (q[:, own] if qb is None else q[:, own] + qb[own].view(-1, 1, 1)).sigmoid()
        part.backward(upstream[:, own].double())
        parts.append(part.detach())
    expected = torch.cat(parts, 1)
    pairs = {"mixed": (mixed, expected), "inference": (unkept, expected)}
    names = ("query", "key", "value", "w", "query bias", "value bias")
    pairs |= {n: (x.grad, y.grad) for n, x, y in zip(names, given, double, strict=True) if x is not None}
    for name, (found, right) in pairs.items():
        error = (found.double() - right).norm() / right.norm()
        assert error < 1e-2, f"{name}: relative error {error:.2e}"
