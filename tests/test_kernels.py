"""Triton kernels through the interpreter, against the float64 reference, forward and every gradient."""

import math
import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

CASES = [
    ((5, 7), (3, 5), 1.0),
    ((4, 4), (3, 3), 60.0),
    ((9,), (5,), 1.0),
    ((3, 3), (7, 7), 2.0),
]


def check(grid, window, scale):
    """Compare dense_forward and its gradients with the reference; run where TRITON_INTERPRET=1 is set."""
    from aft_lens.ops.kernels.dense import dense_forward  # noqa: PLC0415 - Triton reads its environment on import
    from aft_lens.ops.reference import aft_conv  # noqa: PLC0415

    torch.manual_seed(0)
    b, h, c, t = 3, 2, 3, math.prod(grid)
    query, value = (torch.randn(h, c, b, t).permute(2, 0, 1, 3).requires_grad_() for _ in range(2))
    key, w = torch.randn(b, h, t).requires_grad_(), (torch.randn(h, *window) * scale).requires_grad_()
    mixed, *_ = dense_forward(query, key, value, w, None, None, list(grid))
    double = [x.detach().double().requires_grad_() for x in (query, key, value, w)]
    q, k, v, bias = double
    expected = aft_conv(q.view(b, h, c, *grid), k.view(b, h, *grid), v.view(b, h, c, *grid), bias).view(b, h, c, t)
    upstream = torch.randn(b, h, c, t)
    mixed.backward(upstream)
    expected.backward(upstream.double())
    pairs = [(mixed, expected), *((x.grad, y.grad) for x, y in zip((query, key, value, w), double, strict=True))]
    for found, right in pairs:
        error = (found.double() - right).norm() / right.norm()
        assert error < 1e-5, f"relative error {error:.2e}"


def test_dense_kernels_equal_the_reference():
    code = "from tests.test_kernels import CASES, check; [check(*case) for case in CASES]"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
