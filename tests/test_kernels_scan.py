"""Scan kernels (AFT-simple, causal AFT-local) in Triton's interpreter against the float64 reference; on a GPU too."""

import logging
import warnings
from functools import partial

import pytest
import torch
from apart import run_apart

from aft_lens.ops import BiasFactors, aft_local, aft_simple, reference
from aft_lens.ops.forms.causal_window import causal_window_bias

pytest.importorskip("triton", reason="Triton is not installed")

HARMLESS = 1e-2
"""A gradient that is 0 but for rounding is held to this size, not to itself."""


def spread(band):
    """w `t t` of a causal band `t offset`, 0 outside it."""
    position = torch.arange(len(band), device=band.device)
    offset = position.unsqueeze(1) - position
    near = (offset >= 0) & (offset < band.shape[1])
    return torch.where(near, band.gather(1, offset.clamp(0, band.shape[1] - 1)), 0.0)


def inputs(length, ramp=0.0, level=1.0, *, batch=2, dim=3, device="cpu", dtype=torch.float32):
    """Query, key and value, keys rising by `ramp` nats over time."""
    query, key, value = (torch.randn(batch, length, dim, device=device) for _ in range(3))
    key = level * key + torch.linspace(-ramp / 2, ramp / 2, length, device=device).unsqueeze(1)
    return [x.to(dtype) for x in (query, key, value)]


def check(run, tensors, *, causal=True, limit=2e-5):
    """Hold `run` and every gradient to the reference; tensors are query (or None), key, value and perhaps a band."""
    given = [None if x is None else x.detach().clone().requires_grad_() for x in tensors]
    wide = [None if x is None else x.detach().double().requires_grad_() for x in tensors]
    query, key, value, *band = wide
    w = spread(band[0]) if band else key.new_zeros(key.shape[1], key.shape[1])
    right = reference.aft_full(query, key, value, w, causal=causal)
    upstream = torch.randn_like(value, dtype=torch.float32).to(value.dtype).float()
    found = run(*given)
    named = [x for x in given if x is not None]
    grads = torch.autograd.grad(found, named, upstream.to(found.dtype))
    expected = torch.autograd.grad(right, [x for x in wide if x is not None], upstream.double())
    for i, (one, other) in enumerate(zip((found, *grads), (right, *expected), strict=True)):
        distance, size = (one - other).detach().norm(), other.detach().norm()
        error = float(distance / size.clamp(min=HARMLESS * upstream.norm()))
        assert error < limit, f"result {i} of {[tuple(x.shape) for x in named]}: relative error {error:.1e}"


def check_simple():
    """Every length, long runs and split ones, rising and falling keys, no query, channels not contiguous."""
    from aft_lens.ops.kernels import dispatch  # noqa: PLC0415 - Triton reads its environment on import
    from aft_lens.ops.kernels.scan import launch  # noqa: PLC0415

    torch.manual_seed(0)
    for causal in (True, False):
        run = partial(dispatch.simple, causal=causal)
        for length, programs in ((1, 1), (7, 99), (63, 1), (130, 3)):
            launch.PROGRAMS = programs
            check(run, inputs(length, batch=1), causal=causal)
        for ramp in (200.0, -200.0):
            check(run, inputs(40, ramp, batch=1), causal=causal)
        _, key, value = inputs(20, level=30.0)
        check(run, [None, key, value], causal=causal)
        check(run, [x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs(9)], causal=causal)
    check(partial(dispatch.simple, causal=True), [x.bfloat16() for x in inputs(9)], limit=1e-2)
    masked = key.masked_fill(torch.arange(20).unsqueeze(1) % 3 == 1, float("-inf"))
    found = dispatch.simple(None, masked, value, causal=True)
    torch.testing.assert_close(found[:, 1], value[:, 0])
    torch.testing.assert_close(
        found[:, 5], dispatch.simple(None, key[:, [0, 2, 3, 5]], value[:, [0, 2, 3, 5]], causal=True)[:, 3]
    )


def check_local():
    """Windows within a chunk and beyond it, ramps, biases at both ends of their range, no query.

    In float32: the interpreter multiplies the bits of bfloat16 matrices as if they were integers.
    """
    from aft_lens.ops.kernels.dispatch import local  # noqa: PLC0415

    torch.manual_seed(0)
    for length, window in ((1, 1), (7, 3), (130, 70)):
        check(local, [*inputs(length, batch=1 + length % 2), torch.randn(length, window)])
    for ramp in (200.0, -200.0):
        check(local, [*inputs(100, ramp, batch=1), torch.randn(100, 9)])
    for shift in (-110.0, 98.0):
        check(local, [*inputs(20, level=20.0, batch=1), (torch.randn(20, 5) + shift).clamp(-110, 100)])
    _, key, value = inputs(30, level=30.0, batch=1)
    check(local, [None, key, value, 40 * torch.randn(30, 5).clamp(-2.5, 2.5)])


def check_future():
    """Later sources, extreme ones and such as are not finite too, move no bit of an earlier target."""
    from aft_lens.ops.kernels import dispatch  # noqa: PLC0415
    from aft_lens.ops.kernels.scan import launch  # noqa: PLC0415

    torch.manual_seed(0)
    launch.PROGRAMS = 8
    query, key, value = inputs(75, batch=1)
    band = torch.randn(75, 9)

    def both(key, value):
        return dispatch.simple(query, key, value, causal=True), dispatch.local(query, key, value, band)

    before = both(key, value)
    for cut, key_part, value_part in (
        (70, -90.0, 3e38), (41, float("inf"), 1.0), (42, 1.0, float("nan")),
    ):  # fmt: skip
        later_key, later_value = key.clone(), value.clone()
        later_key[:, cut:], later_value[:, cut:] = key_part, value_part
        for old, new in zip(before, both(later_key, later_value), strict=True):
            assert torch.equal(old[:, :cut], new[:, :cut])
            assert not torch.equal(old[:, cut:], new[:, cut:])


def check_nothing():
    """Keys and biases of -inf are not read, and a target that reads nothing is 0 and gives no gradient."""
    from aft_lens.ops.kernels import dispatch  # noqa: PLC0415
    from aft_lens.ops.kernels.scan import launch  # noqa: PLC0415

    torch.manual_seed(0)
    launch.PROGRAMS = 8
    query, key, value = inputs(75, batch=1)
    band = torch.randn(75, 9)
    first, channel = key.clone(), key.clone()
    first[:, 0], channel[:, :40, 1] = -torch.inf, -torch.inf
    check(partial(dispatch.simple, causal=False), [query, channel, value], causal=False)
    for missing, run in ((first, "simple"), (channel, "local"), (torch.full_like(key, -torch.inf), "both")):
        if run != "local":
            check(partial(dispatch.simple, causal=True), [query, missing, value])
        if run != "simple":
            check(dispatch.local, [query, missing, value, band])
        assert dispatch.local(None, missing, value, band)[0, 0, 1] == 0
        assert dispatch.simple(None, missing, value, causal=True)[0, 0, 1] == 0
    check(dispatch.local, [query, key, value, torch.full_like(band, -torch.inf)])
    ramp = torch.linspace(-1000.0, 1000.0, 75).unsqueeze(1)
    for far in (ramp, -ramp):  # float32 keeps 6e-5 of a key of 1,000
        check(partial(dispatch.simple, causal=True), [query, key + far, value], limit=2e-4)
    check(dispatch.local, [query, key - ramp, value, band], limit=2e-4)


def check_factors():
    """Biases of a window from their factors, with gradients."""
    from aft_lens.ops.kernels.dispatch import causal_band  # noqa: PLC0415

    torch.manual_seed(0)
    for length, rank, window in ((1, 3, 1), (70, 40, 5), (70, 3, 1), (90, 2, 90), (33, 33, 33)):
        factors = BiasFactors(*(torch.randn(length, rank).requires_grad_() for _ in range(2)))
        found = causal_band(factors, window)
        right = (factors.target.double() @ factors.source.double().T).tril()
        before = torch.arange(length).unsqueeze(1) < torch.arange(window)
        assert (found[before] == 0).all()
        offset = torch.arange(length).unsqueeze(1) - torch.arange(length)
        torch.testing.assert_close(
            spread(found).double(), right.masked_fill(offset >= window, 0.0), rtol=1e-5, atol=1e-5
        )
        upstream = torch.randn_like(found)
        wide = spread(upstream.masked_fill(before, 0.0)).double()
        for one, other in zip(
            torch.autograd.grad(found, factors, upstream),
            torch.autograd.grad((right * wide).sum(), factors),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def check_unwritten():
    """With every buffer poisoned nothing unwritten comes out: outputs and gradients stay as they are."""
    from aft_lens.ops.kernels import dispatch  # noqa: PLC0415

    torch.manual_seed(0)
    empty = torch.empty

    def poisoned(*shape, **options):
        found = empty(*shape, **options)
        return found.fill_(float("nan") if found.is_floating_point() else 2**20)

    torch.empty = poisoned
    try:
        check(dispatch.local, [*inputs(70, batch=1), torch.randn(70, 5)])
        for causal in (True, False):
            check(partial(dispatch.simple, causal=causal), inputs(20, batch=1), causal=causal)
    finally:
        torch.empty = empty


def check_operators():
    """Schemas, shapes without data, gradients under tracing with unknown sizes: what compiling and exporting need."""
    from aft_lens.ops.kernels.scan.local import scan_local  # noqa: PLC0415
    from aft_lens.ops.kernels.scan.pool import pool_simple  # noqa: PLC0415
    from aft_lens.ops.kernels.scan.simple import scan_simple  # noqa: PLC0415
    from aft_lens.ops.kernels.scan.window_bias import window_bias  # noqa: PLC0415

    torch.manual_seed(0)
    query, key, value = (x.requires_grad_() for x in inputs(5))
    torch.library.opcheck(scan_simple, (query, key, value))
    torch.library.opcheck(window_bias, (*(torch.randn(5, 2, requires_grad=True) for _ in range(2)), 3))
    torch.library.opcheck(pool_simple, (query, key, value))
    torch.library.opcheck(scan_local, (None, key, value, torch.randn(5, 2, requires_grad=True)))


@pytest.mark.parametrize("name", ["simple", "local", "future", "nothing", "factors", "unwritten", "operators"])
def test_in_the_interpreter(name):
    run_apart(__name__, f"check_{name}()", interpreted=True)


@pytest.mark.parametrize("window", [1, 5, 70, 90])
def test_the_band_of_a_window(window):
    torch.manual_seed(0)
    whole = torch.randn(90, 90, dtype=torch.float64).requires_grad_()
    offset = torch.arange(90).unsqueeze(1) - torch.arange(90)
    band = causal_window_bias(whole, window)
    assert band.shape == (90, window)
    torch.testing.assert_close(spread(band), torch.where((offset >= 0) & (offset < window), whole, 0.0).float())
    weight = torch.randn(90, window)
    weight[offset[:, 0].unsqueeze(1) < torch.arange(window)] = 0.0
    (gradient,) = torch.autograd.grad((band * weight).sum(), whole)
    torch.testing.assert_close(gradient, spread(weight).double())


def on_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device; the interpreter checks the same kernels at small shapes")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ramp", [0.0, 150.0, -150.0])
def test_on_a_gpu(dtype, ramp):
    on_gpu()
    tensors = inputs(1000, ramp, batch=2, dim=100, device="cuda", dtype=dtype)
    limit = 1e-4 if dtype == torch.float32 else 2e-2
    check(lambda *x: aft_simple(*x, causal=True), tensors, limit=limit)
    check(aft_simple, tensors, causal=False, limit=limit)
    band = torch.randn(1000, 32, device="cuda")
    check(lambda q, k, v, w: aft_local(q, k, v, spread(w), 32, causal=True), [*tensors, band], limit=limit)


def check_compiled():
    """Compiled and under autocast, on a GPU."""
    query, key, value = inputs(100, dim=64, device="cuda")
    w = torch.randn(100, 100, device="cuda")

    def both(query, key, value, w):
        return aft_simple(query, key, value, causal=True) + aft_local(query, key, value, w, 9, causal=True)

    compiled = torch.compile(both, fullgraph=True)
    torch.testing.assert_close(compiled(query, key, value, w), both(query, key, value, w), rtol=1e-4, atol=1e-4)
    with torch.autocast("cuda", torch.bfloat16):
        assert both(query.bfloat16(), key.bfloat16(), value.bfloat16(), w).dtype == torch.bfloat16


def test_the_compiler_and_autocast_take_it_on_a_gpu():
    on_gpu()
    run_apart(__name__, "check_compiled()", interpreted=False)


def test_a_gpu_says_what_it_takes(caplog):
    on_gpu()
    query, key, value = inputs(20, device="cuda")
    with caplog.at_level(logging.DEBUG):
        aft_simple(query, key, value, causal=True)
    assert "Triton" in caplog.text
    with pytest.warns(UserWarning, match="float64"):
        aft_simple(query.double(), key.double(), value.double(), causal=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        aft_simple(query.double(), key.double(), value.double(), causal=True)
