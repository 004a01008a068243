"""Kernels for large grids: through Triton's interpreter on small shapes, on a GPU (if there is one) on real ones."""

import math
from unittest.mock import patch

import pytest
import torch
from apart import run_apart

pytest.importorskip("triton", reason="Triton is not installed")

CASES = [
    {"grid": (5, 7), "window": (3, 5)},
    {"grid": (6, 18), "window": (5, 3), "biased": True, "c": 1},
    {"grid": (17, 17), "window": (7, 7), "h": 1, "gated": False},
    {"grid": (17, 20), "window": (5, 19), "patch_shape": (4, 16), "h": 1, "c": 1},
    {"grid": (3, 3), "window": (7, 7)},
    {"grid": (90,), "window": (5,)},
    {
        "grid": (5, 9),
        "window": (3, 3),
        "scale": 60.0,
        "biased": True,
        "tolerance": 5e-5,
    },  # exact kernels; 200 nats have an ulp of 1e-5
    # A total less a part would be noise here. The peak's gradient is e^-10 of its two terms: float32 leaves 3 digits.
    {"grid": (5, 9), "window": (3, 3), "peak": 40.0, "shift": -30.0, "tolerance": 1e-3},
]
REAL = [
    ((28, 28), (3, 3), 2),
    ((56, 56), (11, 11), 2),
    ((56, 56), (25, 25), 2),
    ((112, 112), (11, 11), 1),
    ((1024,), (7,), 2),
]


def check(
    grid, window, *, h=2, c=3, gated=True, biased=False, scale=1.0, shift=0.0, peak=0.0, patch_shape=None,
    dtype=torch.float32, device="cpu", tolerance=1e-5,
):  # fmt: skip
    """Compare band_forward and its gradients with the reference; unwritten memory holds NaN meanwhile."""
    from aft_lens.ops.kernels.band import launch  # noqa: PLC0415 - Triton reads its environment on import
    from aft_lens.ops.kernels.band.operator import band_forward  # noqa: PLC0415
    from aft_lens.ops.reference import aft_conv  # noqa: PLC0415

    torch.manual_seed(0)
    b, t = 2, math.prod(grid)
    query, value = (torch.randn(h, c, b, t).permute(2, 0, 1, 3) for _ in range(2))
    key, w = torch.randn(b, h, t), torch.randn(h, *window) * scale + shift
    key[..., t // 2] += peak
    biases = (torch.randn(h * c), torch.randn(h * c)) if biased else (None, None)
    given = [x.to(device, kind) for x, kind in ((query, dtype), (key, dtype), (value, dtype), (w, torch.float32))]
    given = [
        None if x is None else x.detach().requires_grad_()
        for x in (*given, *(x if x is None else x.to(device) for x in biases))
    ]
    double = [None if x is None else x.detach().double().requires_grad_() for x in given]
    if not gated:
        given[0] = double[0] = None
    chosen = patch.object(launch, "choose_patch", lambda *_: patch_shape) if patch_shape else patch.dict({})
    upstream = torch.randn(b, h, c, t, device=device, dtype=dtype)
    torch.use_deterministic_algorithms(True)
    with chosen:
        mixed, *_ = band_forward(*given, list(grid))
        mixed.backward(upstream)
    torch.use_deterministic_algorithms(False)
    q, k, v, bias, qb, vb = double
    full = (b, h, c, *grid)
    q = q if q is None or qb is None else q + qb.view(h, c, 1)
    v = v if vb is None else v + vb.view(h, c, 1)
    expected = aft_conv(None if q is None else q.reshape(full), k.view(b, h, *grid), v.reshape(full), bias).view(
        b, h, c, t
    )
    expected.backward(upstream.double())
    names = ("query", "key", "value", "w", "query bias", "value bias")
    pairs = [("mixed", mixed, expected)]
    pairs += [(n, x.grad, y.grad) for n, x, y in zip(names, given, double, strict=True) if x is not None]
    for name, found, right in pairs:
        error = (found.double() - right).norm() / right.norm()
        assert error < tolerance, f"{name} of {grid}, {window}: relative error {error:.2e}"


def check_layer():
    """AFT-conv's way through the kernels."""
    from test_kernels import check_both_ways  # noqa: PLC0415

    from aft_lens.layers.mixers.aft_conv import AFTConv  # noqa: PLC0415
    from aft_lens.layers.position_bias import Free  # noqa: PLC0415

    torch.manual_seed(0)
    check_both_ways(AFTConv(4, 2, Free(2, 3, 3)), torch.randn(1, 272, 4), (17, 16))


def check_dispatch():
    """implementation="triton" takes any layout and both kinds of grids; the operator's fake tensors fit its results."""
    from aft_lens.ops import aft_conv  # noqa: PLC0415
    from aft_lens.ops.kernels.band.operator import band_forward  # noqa: PLC0415

    query, value = torch.randn(1, 2, 1, 20, 14), torch.randn(1, 2, 1, 14, 20).transpose(3, 4)
    key, w = torch.randn(1, 20, 14, 2).permute(0, 3, 1, 2), torch.randn(2, 3, 3)
    fused = aft_conv(query, key, value, w, implementation="triton")
    torch.testing.assert_close(fused, aft_conv(query, key, value, w), rtol=1e-4, atol=1e-5)
    line = torch.randn(1, 1, 1, 80_000)
    with pytest.raises(ValueError, match="no grid as long"):
        aft_conv(None, line[0], line, torch.randn(1, 3), implementation="triton")
    torch.library.opcheck(
        band_forward, (query.flatten(3), key.flatten(2), value.flatten(3), w, None, None, [20, 14]),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip


def test_band_kernels_equal_the_reference():
    run_apart(__name__, "[check(**case) for case in CASES]; check_layer(); check_dispatch()", interpreted=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("grid", "window", "h"), REAL)
# bfloat16 keeps 8 bits: each product and result is off by up to 2^-9; the interpreter has no products of it
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float32, 1e-5)])
def test_band_kernels_on_a_gpu(grid, window, h, dtype, tolerance):
    check(grid, window, h=h, biased=True, dtype=dtype, device="cuda", tolerance=tolerance)
