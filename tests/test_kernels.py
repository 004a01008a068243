"""Triton kernels through the interpreter, against the float64 reference, forward and every gradient."""

import copy
import math

import pytest
import torch
from apart import run_apart
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("triton", reason="Triton is not installed")

CASES = [
    ((5, 7), (3, 5), 1.0, (3, 2, 3)),
    ((4, 4), (3, 3), 60.0, (3, 2, 3)),
    ((9,), (5,), 1.0, (3, 2, 3)),
    ((3, 3), (7, 7), 2.0, (3, 2, 3)),
    ((5, 7), (3, 5), 1.0, (3, 2, 1)),
    ((4, 4), (3, 3), (1.0, 60.0), (35, 2, 1)),
]
"""Grid, window, scale of its biases (of all heads or each), and b h c."""


def check(grid, window, scale, shape):
    """Compare dense_forward and its gradients with the reference; run where TRITON_INTERPRET=1 is set."""
    from aft_lens.ops.kernels.dense.operator import (  # noqa: PLC0415 - Triton reads its environment on import
        dense_forward,
        dense_inference,
    )
    from aft_lens.ops.reference import aft_conv  # noqa: PLC0415

    torch.manual_seed(0)
    (b, h, c), t = shape, math.prod(grid)
    query, value = (torch.randn(h, c, b, t).permute(2, 0, 1, 3).requires_grad_() for _ in range(2))
    key, w = torch.randn(b, h, t).requires_grad_(), torch.randn(h, *window)
    w = (w.transpose(0, -1) * torch.tensor(scale)).transpose(0, -1).requires_grad_()
    inputs = (query, key, value, w, None, None, list(grid))
    mixed, *_ = dense_forward(*inputs)
    with torch.no_grad():
        assert torch.equal(dense_inference(*inputs), mixed)
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


def check_layer():
    """AFT-conv's way through the kernels."""
    from aft_lens.layers.mixers.aft_conv import AFTConv  # noqa: PLC0415
    from aft_lens.layers.position_bias import Free  # noqa: PLC0415

    torch.manual_seed(0)
    check_both_ways(AFTConv(12, 3, Free(3, 3, 5)), torch.randn(2, 20, 12), (4, 5))


def check_both_ways(layer, x, grid):
    """A layer's way through the kernels equals its plain way, forward and every gradient."""
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    plain = layer(x, grid)
    layer.implementation = "triton"
    fused = layer._channels_first(x, grid)
    torch.testing.assert_close(fused, plain, rtol=1e-4, atol=1e-5)
    upstream = torch.randn_like(plain)
    names, parameters = zip(*layer.named_parameters(), strict=True)
    expected = torch.autograd.grad(plain, parameters, upstream)
    for name, found, right in zip(names, torch.autograd.grad(fused, parameters, upstream), expected, strict=True):
        if name != "key.bias":  # the same for every source: its gradient is 0 but for rounding
            assert (found - right).norm() <= 1e-4 * right.norm(), name


def check_dispatch():
    """implementation="triton" takes any layout and equals the other forms; what it cannot take is an error."""
    from aft_lens.ops import aft_conv  # noqa: PLC0415

    query, value = torch.randn(2, 3, 2, 4, 5), torch.randn(2, 3, 2, 4, 5).transpose(3, 4).contiguous().transpose(3, 4)
    key, w = torch.randn(2, 4, 5, 3).permute(0, 3, 1, 2), torch.randn(3, 3, 3)
    fused = aft_conv(query, key, value, w, implementation="triton")
    torch.testing.assert_close(fused, aft_conv(query, key, value, w), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="causal"):
        aft_conv(query, key, value, w, causal=True, implementation="triton")


class Called(TorchDispatchMode):
    """Names of the project's operators that ran."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "aft_lens":
            self.names.append(func._opname)
        return func(*args, **(kwargs or {}))


def check_inference():
    """What gradients need is written where one is asked for alone, eagerly and in one compiled graph."""
    from aft_lens.ops.kernels.dense.operator import dense_forward, dense_inference  # noqa: PLC0415
    from aft_lens.ops.kernels.dispatch import conv  # noqa: PLC0415

    value, key, w = torch.randn(2, 3, 2, 20), torch.randn(2, 3, 20), torch.randn(3, 3, 3)
    bias = torch.randn(3, 3, 3, requires_grad=True)
    for call in (conv, torch.compile(conv, fullgraph=True, backend="aot_eager")):
        with Called() as called:
            call(None, key, value, w, (4, 5))
            with torch.no_grad():
                call(None, key, value, bias, (4, 5))
            with torch.inference_mode():
                call(None, key, value, bias, (4, 5))
            call(None, key, value, bias, (4, 5)).sum().backward()
        assert called.names == ["dense_inference"] * 3 + ["dense_forward", "dense_backward"]
    for operator in (dense_forward, dense_inference):
        torch.library.opcheck(
            operator, (None, key, value, w, None, None, [4, 5]), test_utils=("test_schema", "test_faketensor")
        )


def check_prepared():
    """A layer that is prepared expands its bias once; what it kept goes with its mode and its bias."""
    from aft_lens.layers.mixers.aft_conv import AFTConv  # noqa: PLC0415
    from aft_lens.ops import aft_conv, prepare_bias  # noqa: PLC0415
    from aft_lens.ops.kernels.dense.operator import dense_expand, dense_prepared  # noqa: PLC0415

    torch.manual_seed(0)
    layer, x = AFTConv(12, 3, window_size=3).eval(), torch.randn(2, 20, 12)
    layer.implementation = "triton"

    def ran(call=layer):
        with Called() as called, torch.no_grad():
            out = call(x, (4, 5))
        return out, called.names

    with torch.no_grad():
        layer.position_bias.gamma.normal_()
        plain, names = ran()
        assert names == ["dense_inference"]
        layer.prepare((4, 5))
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        found, names = ran()
        assert names == ["dense_prepared"]
        assert torch.equal(found, plain)
        assert torch.equal(compiled(x, (4, 5)), plain)
        layer.position_bias.gamma.mul_(2.0)
        changed, names = ran()
        assert names == ["dense_inference"]
        assert torch.equal(compiled(x, (4, 5)), changed)
        assert not torch.equal(changed, plain)
        layer.prepare((4, 5), torch.bfloat16)
        assert ran()[1] == ["dense_inference"], "of another dtype"
        layer.prepare((5, 4))
        assert ran()[1] == ["dense_inference"], "of another grid"
        assert ran(copy.deepcopy(layer))[1] == ["dense_inference"]
        kept = prepare_bias(layer.position_bias().detach(), (4, 5), torch.float32)
        key, value = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 4, 5, 4)
        with pytest.raises(ValueError, match=r"prepared for grid \(4, 5\) and torch\.float32, got \(5, 4\)"):
            aft_conv(None, key, value, kept)
    kept = layer
    for drop in (kept.train, kept.eval, kept.double, kept.float):
        kept.eval().prepare((4, 5))
        drop()
        assert (kept._prepared is None) == (drop != kept.eval), drop
    kept.eval().prepare((4, 5))
    assert kept(x, (4, 5)).requires_grad, "a gradient is taken of the bias as it is"
    w, (e, span) = torch.randn(3, 3, 3), dense_expand(torch.randn(3, 3, 3), [4, 5], torch.float32)
    given = (None, torch.randn(2, 3, 20), torch.randn(2, 3, 2, 20), w, None, None, e, span, [4, 5])
    torch.library.opcheck(dense_expand, (w, [4, 5], torch.float16), test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(dense_prepared, given, test_utils=("test_schema", "test_faketensor"))


def test_triton_is_refused_without_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from aft_lens.ops import aft_conv  # noqa: PLC0415

    with pytest.raises(ValueError, match="run on CUDA"):
        aft_conv(
            None, torch.randn(1, 1, 3, 3), torch.randn(1, 1, 1, 3, 3), torch.randn(1, 3, 3), implementation="triton"
        )


def test_dense_kernels_equal_the_reference():
    run_apart(
        __name__,
        "[check(*case) for case in CASES]; check_layer(); check_dispatch(); check_inference(); check_prepared()",
        interpreted=True,
    )
