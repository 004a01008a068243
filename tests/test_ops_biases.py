"""Biases of the projections that are still to be added: the same as adding them first."""

import pytest
import torch

from aft_lens.ops import aft_conv, aft_indexed


def tensors(h=3, c=2, grid=(4, 5)):
    generator = torch.Generator().manual_seed(0)
    query, value = (torch.randn(2, h, c, *grid, generator=generator) for _ in range(2))
    key, w = torch.randn(2, h, *grid, generator=generator), torch.randn(h, 3, 3, generator=generator)
    return query, key, value, w, torch.randn(h * c, generator=generator), torch.randn(h * c, generator=generator)


def added(x, bias):
    return x + bias.view(*x.shape[1:3], 1, 1)


@pytest.mark.parametrize("implementation", ["auto", "matmul", "convolution", "rowwise"])
def test_conv_adds_them(implementation):
    query, key, value, w, a, b = tensors()
    found = aft_conv(query, key, value, w, implementation=implementation, query_bias=a, value_bias=b)
    assert torch.equal(found, aft_conv(added(query, a), key, added(value, b), w, implementation=implementation))


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_indexed_adds_them(keep):
    query, key, value, _, a, b = tensors()
    w, offset = torch.randn(3, keep), torch.tensor([[0, 1], [1, 0]])[:keep].expand(3, keep, 2)
    found = aft_indexed(query, key, value, w, offset, query_bias=a, value_bias=b)
    assert torch.equal(found, aft_indexed(added(query, a), key, added(value, b), w, offset))


def test_what_does_not_fit_is_named():
    query, key, value, w, a, _ = tensors()
    with pytest.raises(ValueError, match="value_bias must have 6 entries"):
        aft_conv(query, key, value, w, value_bias=a[:5])
    with pytest.raises(ValueError, match="query_bias needs a query"):
        aft_conv(None, key, value, w, query_bias=a)
