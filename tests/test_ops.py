"""Operators against the float64 reference, forward and gradients, and the invariants of Eq. 2-6."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aft_lens import ops
from aft_lens.ops import reference
from aft_lens.ops.bias import causal_mask, expand_bias, expand_offsets, source_index

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 3e-3}
"""float32 sums of some hundred terms lose about 1e-6; the half formats round inputs and output."""


def grid_inputs(grid, window, *, heads=2, channels=3, batch=2, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [
        (batch, heads, channels, *grid),
        (batch, heads, *grid),
        (batch, heads, channels, *grid),
        (heads, *window),
    ]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


def relative_error(found, expected):
    return ((found.double() - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def assert_same_with_gradients(operator, oracle, inputs, tolerance):
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    found, expected = operator(*inputs), oracle(*exact)
    assert relative_error(found, expected) <= tolerance
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    gradients = torch.autograd.grad((found.double() * weight).sum(), inputs, materialize_grads=True)
    references = torch.autograd.grad((expected * weight).sum(), exact, materialize_grads=True)
    scale = max(gradient.norm().item() for gradient in references)
    for gradient, true in zip(gradients, references, strict=True):
        assert (gradient.double() - true).norm().item() <= 4 * tolerance * scale


GRIDS = [((1,), (3,)), ((7,), (3,)), ((63,), (9,)), ((1, 1), (3, 3)), ((5, 7), (3, 5)), ((4, 4), (11, 11))]


@pytest.mark.parametrize(("grid", "window"), GRIDS)
@pytest.mark.parametrize("implementation", ["auto", "matmul", "convolution", "rowwise"])
@pytest.mark.parametrize("outside", ["global", "none"])
def test_conv_matches_reference(grid, window, implementation, outside):
    for dtype in (torch.float64, torch.float32):
        assert_same_with_gradients(
            lambda *x: ops.aft_conv(*x, outside=outside, implementation=implementation),
            lambda *x: reference.aft_conv(*x, outside=outside),
            grid_inputs(grid, window, dtype=dtype),
            TOLERANCE[dtype],
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_conv_accumulates_wider_than_its_input(dtype):
    inputs = grid_inputs((6, 6), (5, 5), dtype=dtype)
    found = ops.aft_conv(*inputs)
    assert found.dtype == dtype
    assert relative_error(found, reference.aft_conv(*inputs)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("grid_window", [((7,), (3,)), ((4, 5), (3, 3))])
def test_causal_conv_matches_and_never_sees_the_future(grid_window):
    grid, window = grid_window
    inputs = grid_inputs(grid, window, dtype=torch.float32)
    assert_same_with_gradients(
        lambda *x: ops.aft_conv(*x, causal=True), lambda *x: reference.aft_conv(*x, causal=True), inputs, 1e-5
    )
    query, key, value, bias = (tensor.detach() for tensor in inputs)
    changed_key, changed_value = key.clone(), value.clone()
    changed_key.flatten(2)[..., -1] += 50.0
    changed_value.flatten(3)[..., -1] += 50.0
    before = ops.aft_conv(query, key, value, bias, causal=True).flatten(3)[..., :-1]
    after = ops.aft_conv(query, changed_key, changed_value, bias, causal=True).flatten(3)[..., :-1]
    assert torch.equal(before, after)


@pytest.mark.parametrize("bias_level", [-30.0, -100.0, 60.0, 100.0])
def test_conv_survives_a_dominant_key_under_an_extreme_bias(bias_level):
    query, key, value, bias = (x.detach() for x in grid_inputs((6, 6), (3, 3), dtype=torch.float32))
    key[:, :, 2, 2] += 40.0
    bias += bias_level
    expected = reference.aft_conv(query, key, value, bias)
    assert relative_error(ops.aft_conv(query, key, value, bias), expected) <= 1e-5
    assert relative_error(ops.aft_conv(query, key, value, bias, implementation="convolution"), expected) <= 1e-4 or (
        abs(bias_level) > 80
    )


def test_conv_survives_key_and_bias_peaks_far_apart():
    query, key, value, bias = (x.detach() for x in grid_inputs((5, 5), (3, 3), dtype=torch.float32))
    key[:, :, 0, 0] += 100.0
    bias[:, 2, 2] += 100.0
    found = ops.aft_conv(query, key, value, bias)
    assert relative_error(found, reference.aft_conv(query, key, value, bias)) <= 1e-5


@pytest.mark.parametrize("keep", [0, 1, 2, 8])
@pytest.mark.parametrize("implementation", ["auto", "gather", "rowwise"])
def test_indexed_matches_reference(keep, implementation):
    offset = torch.stack([torch.randperm(49, generator=torch.Generator().manual_seed(i))[:keep] for i in range(2)])
    offset = torch.stack([offset // 7 - 3, offset % 7 - 3], dim=-1)
    query, key, value, _ = grid_inputs((5, 7), (3, 3), dtype=torch.float32)
    bias = torch.randn(2, keep, generator=torch.Generator().manual_seed(5)).requires_grad_()
    assert_same_with_gradients(
        lambda *x: ops.aft_indexed(*x, offset, implementation=implementation),
        lambda *x: reference.aft_indexed(*x, offset),
        [query, key, value, bias],
        1e-5,
    )


@pytest.mark.parametrize("level", [-60.0, -5.0, 30.0, 100.0])
def test_indexed_survives_extreme_biases(level):
    query, key, value, _ = (x.detach() for x in grid_inputs((5, 5), (3, 3), dtype=torch.float32))
    key[:, :, 2, 2] += 40.0
    bias, offset = torch.full((2, 1), level), torch.tensor([[[0, 1]], [[-1, 0]]])
    expected = reference.aft_indexed(query, key, value, bias, offset)
    assert relative_error(ops.aft_indexed(query, key, value, bias, offset), expected) <= 1e-5


def test_indexed_with_all_offsets_is_conv():
    query, key, value, bias = grid_inputs((4, 5), (3, 3), dtype=torch.float64)
    offset = torch.cartesian_prod(torch.arange(-1, 2), torch.arange(-1, 2)).expand(2, 9, 2)
    found = ops.aft_indexed(query, key, value, bias.flatten(1), offset)
    torch.testing.assert_close(found, ops.aft_conv(query, key, value, bias), rtol=1e-12, atol=1e-12)


def test_conv_is_full_with_the_expanded_bias():
    query, key, value, bias = grid_inputs((3, 4), (3, 3), heads=1)
    tokens = [x.flatten(3)[:, 0].transpose(1, 2) for x in (query, value)]
    spread = key.flatten(2)[:, 0, :, None].expand_as(tokens[1])
    full = ops.aft_full(tokens[0], spread, tokens[1], expand_bias(bias, (3, 4))[0])
    torch.testing.assert_close(
        full.transpose(1, 2).reshape(query.shape[0], 1, 3, 3, 4), ops.aft_conv(query, key, value, bias)
    )


def pairs(grid):
    """Numbers of target and source in raster order, and the step from one to the other."""
    places = list(product(*map(range, grid)))
    for (t, target), (s, source) in product(enumerate(places), enumerate(places)):
        yield t, s, tuple(b - a for a, b in zip(target, source))


@pytest.mark.parametrize(("grid", "window"), [((5,), (7,)), ((6,), (3,)), ((3, 4), (3, 5)), ((4, 2), (1, 7))])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("outside", ["global", "none"])
def test_a_bias_is_written_out_to_every_pair(grid, window, causal, outside):
    bias = torch.randn(2, *window, generator=torch.Generator().manual_seed(0))
    found = expand_bias(bias, grid, causal=causal, outside=outside)
    beyond = {"global": 0.0, "none": float("-inf")}[outside]
    for t, s, step in pairs(grid):
        index = tuple(at + side // 2 for at, side in zip(step, window))
        inside = all(0 <= at < side for at, side in zip(index, window))
        for head in range(2):
            expected = bias[head][index].item() if inside else beyond
            assert found[head, t, s] == (float("-inf") if causal and s > t else expected)
    meta = expand_bias(torch.empty(2, *window, device="meta"), grid, causal=causal, outside=outside)
    assert (meta.device.type, meta.shape) == ("meta", found.shape)


@pytest.mark.parametrize(("grid", "steps"), [((5,), [(0,), (-2,), (4,)]), ((3, 4), [(0, 0), (1, -2), (-2, 3)])])
def test_kept_offsets_are_written_out_to_their_pairs(grid, steps):
    offset = torch.tensor([steps, steps[::-1]])
    bias = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    found, (flat, inside) = expand_offsets(bias, offset, grid), source_index(offset, grid)
    assert flat.shape == inside.shape == (2, 3, found.shape[1])
    assert (flat[~inside] == 0).all()
    for t, s, step in pairs(grid):
        for head in range(2):
            kept = [tuple(each) for each in offset[head].tolist()]
            assert found[head, t, s] == (bias[head, kept.index(step)] if step in kept else 0)
            for index, each in enumerate(kept):
                assert (inside[head, index, t] and flat[head, index, t] == s) == (each == step)


def test_no_target_reads_a_later_source_where_causal():
    assert causal_mask(3).tolist() == [[False, True, True], [False, False, True], [False, False, False]]
    assert causal_mask(3, "meta").device.type == "meta"


def test_query_none_leaves_the_gate_out():
    query, key, value, bias = grid_inputs((3, 4), (3, 3))
    ungated = ops.aft_conv(None, key, value, bias)
    torch.testing.assert_close(ops.aft_conv(query, key, value, bias), torch.sigmoid(query) * ungated)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 3), st.booleans(), st.floats(-20, 20), st.integers(0, 2**20))
def test_invariants(length, width, causal, constant, seed):
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (torch.randn(2, length, width, generator=generator, dtype=torch.float64) for _ in range(3))
    bias = torch.randn(length, length, generator=generator, dtype=torch.float64)
    full = ops.aft_full(query, key, value, bias, causal=causal)
    torch.testing.assert_close(full, reference.aft_full(query, key, value, bias, causal=causal))
    torch.testing.assert_close(full, ops.aft_full(query, key + constant, value, bias, causal=causal))
    torch.testing.assert_close(full, ops.aft_local(query, key, value, bias, length, causal=causal))
    ones = ops.aft_full(None, key, torch.ones_like(value), bias, causal=causal)
    torch.testing.assert_close(ones, torch.ones_like(value))
    zero = ops.aft_full(query, key, value, torch.zeros_like(bias), causal=causal)
    torch.testing.assert_close(zero, ops.aft_simple(query, key, value, causal=causal))


def test_gradcheck():
    inputs = grid_inputs((2, 3), (3, 3), heads=1, channels=2, batch=1)
    assert torch.autograd.gradcheck(lambda *x: ops.aft_conv(*x, implementation="matmul"), inputs)
    assert torch.autograd.gradcheck(lambda *x: ops.aft_conv(*x, implementation="convolution"), inputs)


def test_key_mask_without_a_source_names_the_target():
    query, key, value = torch.randn(3, 2, 4, 3).unbind(0)
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[1, 0] = False
    with pytest.raises(ValueError, match="target 0 of batch entry 1"):
        ops.aft_simple(query, key, value, causal=True, key_mask=mask)
    hidden = ops.aft_full(query, key, value, torch.zeros(4, 4), key_mask=mask)
    changed = ops.aft_full(query, key.index_fill(1, torch.tensor([0]), 9.0), value, torch.zeros(4, 4), key_mask=mask)
    torch.testing.assert_close(hidden[1], changed[1])


@pytest.mark.parametrize(
    ("window", "options", "message"),
    [
        ((2, 3), {}, "odd window"),
        ((3,), {}, "one window dimension"),
        ((3, 3), {"outside": "all"}, "outside must be one of"),
        ((3, 3), {"implementation": "magic"}, "implementation must be one of"),
        ((3, 3), {"implementation": "convolution", "causal": True}, "no causal form"),
    ],
)
def test_conv_refuses_what_it_cannot_do(window, options, message):
    query, key, value, _ = grid_inputs((4, 4), (3, 3))
    with pytest.raises(ValueError, match=message):
        ops.aft_conv(query, key, value, torch.zeros(2, *window, dtype=torch.float64), **options)
