"""AFT-conv in every form: causal and 1-D, extremes within the promise, half precision, invariants."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aft_lens.ops import aft_conv, aft_full, reference
from aft_lens.ops.bias import expand_bias
from aft_lens.ops.check import check_grid
from aft_lens.ops.forms import depthwise

GRIDS_1D = [((1,), (3,)), ((2,), (1,)), ((7,), (15,)), ((63,), (9,)), ((130,), (5,)), ((130,), (101,)), ((97,), (65,))]
GRIDS_2D = [
    ((1, 1), (3, 3)),
    ((1, 9), (3, 5)),
    ((5, 7), (3, 5)),
    ((4, 3), (11, 9)),
    ((13, 6), (1, 7)),
    ((18, 19), (5, 5)),
]


def draw(grid, window, *, heads=3, channels=2, batch=2, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, heads, channels, *grid), (batch, heads, *grid), (batch, heads, channels, *grid), (heads, *window)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def assert_matches(inputs, tolerance, implementation="auto", **options):
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    found = aft_conv(*leaves, implementation=implementation, **options)
    expected = reference.aft_conv(*exact, **options)
    assert found.isfinite().all()
    assert ((found - expected).norm() <= tolerance * expected.norm()).item()
    cotangent = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = torch.autograd.grad((found.double() * cotangent).sum(), leaves, materialize_grads=True)
    true = torch.autograd.grad((expected * cotangent).sum(), exact, materialize_grads=True)
    scale = max(gradient.norm().item() for gradient in true)
    for gradient, right in zip(ours, true, strict=True):
        assert (gradient.double() - right).norm().item() <= 4 * tolerance * scale


@pytest.mark.parametrize(("grid", "window"), GRIDS_1D)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("outside", ["global", "none"])
def test_one_dimension_matches_the_reference(grid, window, causal, outside):
    forms = ["auto", "matmul", "banded"] + ([] if causal else ["convolution"])
    for form in forms:
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            assert_matches(draw(grid, window, dtype=dtype), tolerance, form, causal=causal, outside=outside)


@pytest.mark.parametrize(("grid", "window"), GRIDS_2D)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("outside", ["global", "none"])
def test_two_dimensions_match_the_reference(grid, window, causal, outside):
    forms = ["auto", "matmul"] + ([] if causal else ["convolution"])
    for form in forms:
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            assert_matches(draw(grid, window, dtype=dtype), tolerance, form, causal=causal, outside=outside)


def extreme(kind, grid=(9, 10), window=(3, 5)):
    """Float32 keys within 100 and biases within [-110, 100], at the edges of what is promised."""
    query, key, value, bias = draw(grid, window)
    flat = key.flatten(2)
    if kind in ("ramp_up", "ramp_down"):
        ramp = torch.linspace(-100, 100, flat.shape[-1])
        flat.copy_((ramp if kind == "ramp_up" else -ramp).expand_as(flat))
        bias *= 30
    elif kind == "dominant":
        flat[:, :, 37], bias = 100.0, torch.full_like(bias, -110.0)
    elif kind == "apart":
        flat[:, :, :20] += 96
        flat[:, :, 20:] -= 96
        bias -= 105
        bias[:, 2, 4] += 200
    else:
        key, bias = (40 * key).clamp(-100, 100), (45 * bias).clamp(-110, 100)
    return query, key, value, bias


@pytest.mark.parametrize("kind", ["ramp_up", "ramp_down", "dominant", "apart", "noise"])
@pytest.mark.parametrize("outside", ["global", "none"])
def test_extreme_inputs_stay_within_the_promise(kind, outside):
    inputs = extreme(kind)
    for causal, form in ((False, "matmul"), (False, "convolution"), (True, "auto")):
        assert_matches(inputs, 2e-5, form, causal=causal, outside=outside)
        found = aft_conv(*inputs, implementation=form, causal=causal, outside=outside)
        expected = reference.aft_conv(*inputs, causal=causal, outside=outside)
        assert ((found - expected).abs() <= 1e-4 * expected.abs() + 1e-6).all()
        for dtype in (torch.bfloat16, torch.float16):
            half = [x.to(dtype) for x in inputs]
            found = aft_conv(*half, implementation=form, causal=causal, outside=outside)
            expected = reference.aft_conv(*half, causal=causal, outside=outside)
            assert found.dtype == dtype
            assert ((found.double() - expected).norm() <= 3e-2 * expected.norm()).item()


@pytest.mark.parametrize("level", [-1.9, -2.1, -8.0, -30.0])
def test_the_cheap_sum_is_only_taken_where_it_cannot_cancel(level):
    query, key, value, bias = draw((8, 8), (5, 5))
    key[:, :, 3, 4] += 30
    bias = bias.clamp(-0.1, 0.1) + level
    assert (bias.amin() >= depthwise.MILD) == (level > -1.95)
    assert_matches((query, key, value, bias.clamp(min=level)), 1e-5, "convolution")


@pytest.mark.parametrize(("peak", "cheap"), [(0.0, True), (8.0, False), (30.0, False)])
def test_the_backward_pass_takes_the_cheap_sum_by_the_denominators(peak, cheap, monkeypatch):
    query, key, value, bias = draw((12, 13), (5, 5))
    key[:, :, 5, 6] += peak
    asked, ask = [], depthwise._has_mild_sums
    monkeypatch.setattr(depthwise, "_has_mild_sums", lambda *x: asked.append(ask(*x)) or asked[-1])
    assert_matches((query, key, value, 0.3 * bias - 5), 5e-6, "convolution")
    assert asked == [cheap]


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([((9,), (5,)), ((70,), (7,)), ((4, 5), (3, 3)), ((9, 9), (5, 3))]),
    st.floats(-150, 150),
    st.sampled_from(["global", "none"]),
    st.sampled_from([1e6, 3e38, float("nan")]),
    st.integers(0, 2**20),
)
def test_the_future_moves_no_bit_of_the_past(shape, level, outside, factor, seed):
    query, key, value, bias = draw(*shape, seed=seed)
    length = key.flatten(2).shape[-1]
    cut = 1 + seed % (length - 1)
    later_key, later_value = key.clone(), value.clone()
    later_key.flatten(2)[..., cut:] += level
    later_value.flatten(3)[..., cut:] *= factor
    forms = ["auto", "matmul"] + (["banded"] if len(shape[0]) == 1 else [])
    for form in forms:
        options = {"causal": True, "outside": outside, "implementation": form}
        before = aft_conv(query, key, value, bias, **options).flatten(3)[..., :cut]
        assert torch.equal(before, aft_conv(query, later_key, later_value, bias, **options).flatten(3)[..., :cut])


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 7), st.integers(1, 7), st.sampled_from([1, 3, 5, 9]), st.floats(-20, 20), st.booleans(),
    st.integers(0, 2**20),
)  # fmt: skip
def test_invariants(rows, cols, side, constant, causal, seed):
    query, key, value, bias = draw((rows, cols), (side, 3), dtype=torch.float64, seed=seed)
    found = aft_conv(query, key, value, bias, causal=causal)
    torch.testing.assert_close(found, aft_conv(query, key + constant, value, bias, causal=causal))
    ones = aft_conv(None, key, torch.ones_like(value), bias, causal=causal)
    torch.testing.assert_close(ones, torch.ones_like(value))
    head = [x[:, 0].flatten(2).transpose(1, 2) for x in (query, value)]
    spread = key[:, 0].flatten(1).unsqueeze(-1).expand_as(head[1])
    full = aft_full(head[0], spread, head[1], expand_bias(bias, (rows, cols))[0], causal=causal)
    torch.testing.assert_close(full.transpose(1, 2).reshape(found[:, 0].shape), found[:, 0])


def test_gradcheck_of_every_form():
    for grid, window, causal, forms in (
        ((5,), (3,), True, ("matmul", "banded")),
        ((5,), (3,), False, ("matmul", "banded", "convolution")),
        ((2, 3), (3, 3), True, ("matmul",)),
        ((2, 3), (3, 3), False, ("matmul", "convolution")),
    ):
        inputs = [x.requires_grad_() for x in draw(grid, window, heads=2, batch=1, dtype=torch.float64)]
        for form in forms:
            assert torch.autograd.gradcheck(
                lambda *x, form=form, causal=causal: aft_conv(*x, causal=causal, implementation=form), inputs
            )


def test_no_memory_is_read_before_it_is_written(monkeypatch):
    """With every fresh buffer full of NaN, the results are the same."""
    inputs = draw((9, 6), (3, 5))
    expected = [aft_conv(*inputs, implementation=form) for form in ("matmul", "convolution")]
    fresh = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda *a, **k: fresh(*a, **k).fill_(float("nan")))
    for form, right in zip(("matmul", "convolution"), expected, strict=True):
        assert torch.equal(aft_conv(*inputs, implementation=form), right)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(2, 3, 2, 4, 5), (2, 3, 4, 5), (1, 3, 2, 4, 5)], "over the same batch, heads and grid"),
        ([(2, 3, 1, 4, 5), (2, 3, 4, 5), (2, 3, 2, 4, 5)], r"query must have value's shape \(2, 3, 2, 4, 5\)"),
        ([(2, 3, 2, 0, 5), (2, 3, 0, 5), (2, 3, 2, 0, 5)], "at least one head, channel and position"),
    ],
)
def test_a_wrong_shape_is_named(shapes, message):
    with pytest.raises(ValueError, match=message):
        check_grid(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("outside", ["global", "none"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_exact_form_takes_every_option(causal, outside):
    assert_matches(draw((5, 4), (3, 3)), 1e-5, "rowwise", causal=causal, outside=outside)


def test_banded_is_refused_on_two_dimensions():
    with pytest.raises(ValueError, match="is for 1-D grids"):
        aft_conv(*draw((3, 3), (3, 3)), implementation="banded")
