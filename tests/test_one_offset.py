"""One offset a head: exact at any bias, whatever the keys; which form an indexed layer takes."""

import math

import pytest
import torch

from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.layers.position_bias import Indexed, SinglePosition
from aft_lens.ops import aft_indexed, reference
from aft_lens.ops.inspection import indexed_form

LIMIT = {torch.float64: 2e-15, torch.float32: 1e-6, torch.bfloat16: 4e-3, torch.float16: 6e-4}
"""Some roundings of the sums; half formats round the result once."""
OFFSETS = [[0, 0], [1, -1], [-3, 2], [9, 9]]
"""The first is the source itself, the last off every grid here."""


def relative_error(found, right):
    return ((found.double() - right).norm() / right.norm()).item()


def inputs(grid, w, peak, dtype, b=3):
    """Query, key, value, bias and offsets; one position's key stands `peak` above the others."""
    generator, h, t = torch.Generator().manual_seed(1), len(OFFSETS), math.prod(grid)
    query, value = (torch.randn(b, h, 2, *grid, generator=generator).to(dtype) for _ in range(2))
    key = torch.randn(b, h, t, generator=generator)
    key[..., t // 2] += peak
    offset = torch.tensor(OFFSETS)[:, None, 2 - len(grid) :]
    return query, key.to(dtype).unflatten(-1, grid), value, torch.full((h, 1), w).to(dtype), offset


@pytest.mark.parametrize("w", [-45.0, -5.0, 0.0, 3.0, 45.0])
@pytest.mark.parametrize("peak", [0.0, 80.0, -80.0])
@pytest.mark.parametrize("grid", [(11,), (5, 7)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_offset_is_exact_with_and_without_gradients(grid, peak, w, dtype):
    *tensors, offset = inputs(grid, w, peak, dtype)
    expected = reference.aft_indexed(*tensors, offset)
    assert indexed_form(tensors[3], math.prod(grid)) == "gather"
    assert relative_error(aft_indexed(*tensors, offset), expected) <= LIMIT[dtype]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    double = [tensor.detach().double().requires_grad_() for tensor in tensors]
    found, expected = aft_indexed(*tensors, offset), reference.aft_indexed(*double, offset)
    assert relative_error(found, expected) <= LIMIT[dtype]
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad(found, tensors, upstream.to(dtype))
    rights = torch.autograd.grad(expected, double, upstream.to(dtype).double())
    scale = max(right.norm() for right in rights)
    for gradient, right in zip(gradients, rights, strict=True):
        assert (gradient.double() - right).norm() <= LIMIT[dtype] * scale


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_keys_and_biases_of_a_thousand_nats_keep_the_bound(dtype):
    """A few u log n of the mean of |V| and of |V_s|; w is near what the keys ask for in every other head."""
    generator = torch.Generator().manual_seed(3)
    key = 2000 * torch.rand(8, len(OFFSETS), 5, 7, generator=generator).to(dtype) - 1000
    value = torch.randn(8, len(OFFSETS), 2, 5, 7, generator=generator).to(dtype)
    w = 2000 * torch.rand(len(OFFSETS), 1, generator=generator).to(dtype) - 1000
    first, second = key[0].flatten(1).topk(2).values.unbind(1)
    w[::2, 0] = (second - first)[::2]
    offset = torch.tensor(OFFSETS)[:, None]
    bound = 5 * 12 * torch.finfo(dtype).eps * value.abs().max()
    for needed in (False, True):
        leaves = [x.clone().requires_grad_(needed) for x in (key, value, w)]
        exact = [x.double().requires_grad_(needed) for x in (key, value, w)]
        found, right = aft_indexed(None, *leaves, offset), reference.aft_indexed(None, *exact, offset)
        assert (found - right).detach().abs().max() <= bound
    up = torch.randn(right.shape, generator=generator).double()
    ours, true = torch.autograd.grad(found, leaves, up.to(dtype)), torch.autograd.grad(right, exact, up)
    for gradient, expected in zip(ours, true, strict=True):
        assert gradient.isfinite().all()
        assert (gradient.double() - expected).norm() <= 20 * torch.finfo(dtype).eps * true[1].norm()


@pytest.mark.parametrize("w", [-7.0, 80.0, -math.inf])
def test_keys_and_biases_of_minus_infinity_are_not_read(w):
    query, key, value, _, offset = inputs((5, 7), 0.0, 0.0, torch.float32)
    key.flatten(2)[0, :, 3:] = -math.inf
    key.flatten(2)[1, :, 1:] = -math.inf
    key[2] = -math.inf
    bias = torch.full((len(OFFSETS), 1), w)
    expected = reference.aft_indexed(query, key, value, bias, offset)
    for needed in (False, True):
        found = aft_indexed(query, key, value.requires_grad_(needed), bias, offset)
        assert (found - expected).abs().max() <= 1e-6


def test_the_target_that_reads_the_dominating_key_gets_the_others():
    generator = torch.Generator().manual_seed(2)
    key, value = torch.randn(1, 1, 4, 4, generator=generator), torch.randn(1, 1, 3, 4, 4, generator=generator)
    key[..., 2, 2] += 25.0
    w, offset = torch.tensor([[-45.0]]), torch.tensor([[[1, 1]]])
    expected = reference.aft_indexed(None, key, value, w, offset)[..., 1, 1]
    found = aft_indexed(None, key, value, w, offset)[..., 1, 1]
    assert relative_error(found, expected) <= 5e-6  # K - max K is rounded at 25


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_one_offset_sums_half_precision_in_float32(dtype):
    *tensors, offset = inputs((5, 7), -9.0, 40.0, dtype)
    found = aft_indexed(*tensors, offset)
    assert found.dtype == dtype
    assert relative_error(found, reference.aft_indexed(*tensors, offset)) <= LIMIT[dtype]


def test_one_offset_passes_gradcheck():
    query, key, value, _, offset = inputs((2, 3), 0.0, 0.0, torch.float64, b=1)
    w = torch.tensor([[-5.0], [2.0], [-0.5], [1.0]], dtype=torch.float64)
    tensors = [tensor.requires_grad_() for tensor in (query, key, value, w)]
    assert torch.autograd.gradcheck(lambda *x: aft_indexed(*x, offset, implementation="gather"), tensors)


def test_images_past_the_first_chunk_and_equal_keys(monkeypatch):
    monkeypatch.setattr("aft_lens.ops.forms.in_place.CHUNK", 300)
    query, key, value, w, offset = inputs((5, 7), -8.0, 0.0, torch.float32, b=5)
    key = key.round()
    expected = reference.aft_indexed(query, key, value, w, offset)
    assert relative_error(aft_indexed(query, key, value, w, offset), expected) <= 1e-6


@pytest.mark.parametrize(
    ("bias", "sources", "form"),
    [
        ([[-9.0], [0.0]], 49, "gather"),
        ([[-49.0], [49.0]], 49, "gather"),
        ([[-1000.0], [1000.0]], 49, "gather"),
        ([[-1.0]], 3, "gather"),
        ([[float("nan"), 0.0]], 49, "rowwise"),
        ([[-2.0, 1.0]], 49, "gather"),
        ([[-9.0, 0.0]], 49, "matmul"),
        ([[-30.0, 30.0]], 49, "rowwise"),
        ([[-30.0, 0.0], [30.0, 0.0]], 49, "matmul"),
    ],
)
def test_the_form_follows_from_the_bias(bias, sources, form):
    assert indexed_form(torch.tensor(bias), sources) == form


@pytest.mark.parametrize("levels", [(-48.0, -5.0), (-20.0, 29.0), (45.0, -4.0)])
@pytest.mark.parametrize("peak", [0.0, 80.0])
def test_the_matrix_product_is_exact_for_two_offsets(levels, peak):
    query, key, value, _, offset = inputs((5, 7), 0.0, peak, torch.float32)
    w, offset = torch.tensor([levels] * len(OFFSETS)), torch.cat([offset, offset - 1], dim=1)
    expected = reference.aft_indexed(query, key, value, w, offset)
    assert indexed_form(w, 35) == "matmul"
    assert relative_error(aft_indexed(query, key, value, w, offset), expected) <= 1e-6


@pytest.mark.parametrize("implementation", ["gather", "matmul", "rowwise"])
def test_autocast_leaves_the_sums_in_float32(implementation):
    *tensors, offset = inputs((5, 7), -1.0, 0.0, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = aft_indexed(*tensors, offset, implementation=implementation)
    assert relative_error(found, reference.aft_indexed(*tensors, offset)) <= 1e-6


@pytest.mark.parametrize(("grid", "place", "bad"), [((3, 3), 4, math.inf), ((3, 3), 4, math.nan), ((1,), 0, math.nan)])
def test_a_key_that_is_no_number_is_not_hidden(grid, place, bad):
    query, key, value, w, offset = inputs(grid, -1.0, 0.0, torch.float32)
    key.flatten(2)[..., place] = bad
    for needed in (False, True):
        found = aft_indexed(query, key, value.requires_grad_(needed), w, offset, implementation="gather")
        assert found.isnan().all()


def test_a_single_position_layer_indexes_in_evaluation_unless_w_is_watched():
    torch.manual_seed(0)
    layer = AFTConv(8, 4, SinglePosition(4, (3, 5)))
    torch.nn.init.normal_(layer.position_bias.inner.gamma, std=60)
    x, seen = torch.randn(2, 35, 8), []
    assert layer.position_bias.few() is None
    with torch.no_grad():
        layer.eval()
        found = layer(x, (5, 7))
        w, offset = layer.position_bias.few()
        assert torch.equal(Indexed(w, offset).dense((3, 5)), layer.position_bias())
        handle = layer.position_bias.register_forward_hook(lambda *_: seen.append(1))
        torch.testing.assert_close(found, layer(x, (5, 7)))
        assert seen == [1]
        handle.remove()
        layer.implementation = "matmul"
        torch.testing.assert_close(found, layer(x, (5, 7)))
        layer.implementation, layer.outside = "auto", "none"
        assert (found - layer(x, (5, 7))).norm() > 1e-3
