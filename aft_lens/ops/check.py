"""What the operators take, checked by name before anything is computed."""

from typing import overload

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_floating(**tensors: Tensor | None) -> None:
    """Raise ValueError, naming the tensor, unless each that is given is of float16, bfloat16, float32 or float64."""
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype not in FLOATS:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{name} must be float16, bfloat16, float32 or float64, got {dtype}; use {name}.float()")


def check_tokens(query: Tensor | None, key: Tensor, value: Tensor, key_mask: Tensor | None = None) -> None:
    """Raise ValueError unless key, value and query are the same floating `b t d`, and key_mask a boolean `b t`.

    The batch may be empty; t and d may not.
    """
    check_floating(query=query, key=key, value=value)
    if value.ndim != 3 or key.shape != value.shape:
        raise ValueError(f"key and value must have one shape (b t d), got {tuple(key.shape)} and {tuple(value.shape)}")
    _check_query(query, value)
    if 0 in key.shape[1:]:
        raise ValueError(f"key must have at least one position and one channel, got shape {tuple(key.shape)}")
    if key_mask is not None and (key_mask.dtype != torch.bool or key_mask.shape != key.shape[:2]):
        raise ValueError(
            f"key_mask must be boolean with shape {tuple(key.shape[:2])}, True where a source may be read; "
            f"got {key_mask.dtype} with shape {tuple(key_mask.shape)}"
        )


def check_grid(query: Tensor | None, key: Tensor, value: Tensor) -> None:
    """Raise ValueError unless key is a floating `b h *grid` and value (and query) `b h c *grid`.

    The batch may be empty; h, c and the sides of the grid may not be 0.
    """
    check_floating(query=query, key=key, value=value)
    if value.ndim != key.ndim + 1 or key.ndim < 3 or value.shape[:2] + value.shape[3:] != key.shape:
        raise ValueError(
            "key must be (b h *grid) and value (b h c *grid) over the same batch, heads and grid, "
            f"got {tuple(key.shape)} and {tuple(value.shape)}"
        )
    _check_query(query, value)
    if 0 in value.shape[1:]:
        raise ValueError(
            f"value must have at least one head, channel and position (b h c *grid), got shape {tuple(value.shape)}"
        )


def check_biases(query: Tensor | None, value: Tensor, query_bias: Tensor | None, value_bias: Tensor | None) -> None:
    """Raise ValueError unless the projections' biases are vectors of the h c channels of value (and query)."""
    check_floating(query_bias=query_bias, value_bias=value_bias)
    channels = value.shape[1] * value.shape[2]
    for name, bias in (("query_bias", query_bias), ("value_bias", value_bias)):
        if bias is not None and bias.shape != (channels,):
            raise ValueError(f"{name} must have {channels} entries, one a channel, got shape {tuple(bias.shape)}")
    if query is None and query_bias is not None:
        raise ValueError("query_bias needs a query, got query=None; leave the bias out too")


@overload
def biased(x: None, bias: Tensor | None) -> None: ...
@overload
def biased(x: Tensor, bias: Tensor | None) -> Tensor: ...
def biased(x: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """Query or value `b h c *grid` with its projection's bias added."""
    if x is None or bias is None:
        return x
    return x + bias.view(*x.shape[1:3], *[1] * (x.ndim - 3))


def _check_query(query: Tensor | None, value: Tensor) -> None:
    if query is not None and query.shape != value.shape:
        raise ValueError(f"query must have value's shape {tuple(value.shape)}, got {tuple(query.shape)}")
