"""Kernels for small grids on a GPU, real shapes; the interpreter checks the same ones at small shapes."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from aft_lens.ops.kernels.dense.operator import dense_forward, dense_inference
from aft_lens.ops.reference import aft_conv

FEW = 6
"""Heads that the reference, which holds every pair of positions, takes at a time."""


def check(b, h, c, grid, *, dtype, gated=True, biased=False, wide=1.0, limit=1e-2, device="cuda", window=(11, 11)):
    """Hold y, with and without what gradients need, and every gradient to float64; unwritten memory holds NaN."""
    generator, t = torch.Generator(device).manual_seed(0), grid[0] * grid[1]

    def normal(*shape):
        return torch.randn(shape, device=device, generator=generator)

    query, value = (normal(h, c, b, t).to(dtype).permute(2, 0, 1, 3) for _ in range(2))
    w = normal(h, *window)
    w[0] *= wide
    given = [
        query if gated else None, normal(h, b, t).to(dtype).transpose(0, 1), value, w,
        normal(h * c) if biased and gated else None, normal(h * c) if biased else None,
    ]  # fmt: skip
    given = [x if x is None else x.requires_grad_() for x in given]
    double = [x if x is None else x.detach().double().requires_grad_() for x in given]
    upstream = normal(b, h, c, t).to(dtype)
    torch.use_deterministic_algorithms(True)
    mixed, *_ = dense_forward(*given, list(grid))
    mixed.backward(upstream)
    with torch.no_grad():
        unkept = dense_inference(*given, list(grid))
    torch.use_deterministic_algorithms(False)
    q, k, v, w, qb, vb = double
    parts = []
    for first in range(0, h, FEW):
        own = slice(first, first + FEW)
        part = aft_conv(None, k[:, own].unflatten(2, grid), v[:, own].unflatten(3, grid), w[own]).flatten(3)
        part = part if vb is None else part + vb.view(h, c, 1)[own]
        if gated:
            part = part * (q[:, own] if qb is None else q[:, own] + qb.view(h, c, 1)[own]).sigmoid()
        part.backward(upstream[:, own].double())
        parts.append(part.detach())
    expected = torch.cat(parts, 1)
    pairs = {"mixed": (mixed, expected), "inference": (unkept, expected)}
    names = ("query", "key", "value", "w", "query bias", "value bias")
    pairs |= {n: (x.grad, y.grad) for n, x, y in zip(names, given, double, strict=True) if x is not None}
    for name, (found, right) in pairs.items():
        error = (found.double() - right).norm() / right.norm()
        assert error < limit, f"{name}: relative error {error:.2e}"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("b", "h", "c", "grid", "dtype", "options"),
    [
        (256, 384, 1, (14, 14), torch.bfloat16, {}),
        (77, 384, 1, (14, 14), torch.bfloat16, {"biased": True}),
        (64, 32, 12, (14, 14), torch.bfloat16, {}),
        (33, 16, 24, (14, 14), torch.float16, {"biased": True}),
        (5, 4, 3, (14, 14), torch.float32, {"biased": True, "limit": 1e-5}),
        (5, 6, 1, (14, 14), torch.float32, {"limit": 1e-5}),
        (70, 6, 1, (14, 14), torch.bfloat16, {"wide": 60.0, "biased": True}),
        (300, 6, 1, (14, 14), torch.bfloat16, {"gated": False, "biased": True}),
        (1, 6, 1, (14, 14), torch.bfloat16, {"gated": False}),
        (70, 6, 1, (13, 16), torch.float16, {"biased": True}),
        (70, 6, 1, (16, 16), torch.bfloat16, {"biased": True}),
        (70, 6, 1, (3, 43), torch.bfloat16, {}),
        (70, 6, 2, (7, 7), torch.bfloat16, {}),
    ],
)
def test_dense_kernels_equal_the_reference_on_a_gpu(b, h, c, grid, dtype, options):
    check(b, h, c, grid, dtype=dtype, **options)
