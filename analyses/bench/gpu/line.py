"""AFT-simple and causal AFT-local on a line for `aft-lens bench gpu`: kernels, PyTorch forms, causal attention."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from aft_lens.ops import BiasFactors, aft_local, aft_simple, reference
from aft_lens.ops.inspection import local_by_products, simple_by_prefix_sums

RANK = 128
"""d' of the position bias's factors, as in the paper."""
CHECKED = 16
"""Channels of the first sequence whose outputs are held to the reference: it holds T x T weights a channel."""


def _attention(window: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def _simple(window: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return aft_simple(query, key, value)


def _simple_causal(window: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return aft_simple(query, key, value, causal=True)


def _local_causal(window: int, query: Tensor, key: Tensor, value: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return aft_local(query, key, value, BiasFactors(u, v), window, causal=True)


def _local_torch(window: int, query: Tensor, key: Tensor, value: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return local_by_products(query, key, value, BiasFactors(u, v), window, causal=True)


def _simple_torch(window: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return simple_by_prefix_sums(query, key, value)


OPERATORS: dict[str, Callable[..., Tensor]] = {
    "sdpa_causal": _attention,
    "simple": _simple,
    "simple_causal": _simple_causal,
    "simple_causal_torch": _simple_torch,
    "local_causal": _local_causal,
    "local_causal_torch": _local_torch,
}
UNCAPTURED = ("local_causal_torch", "simple_causal_torch")
"""Forms that look at denominators or keys on the way (in a graph they take the wide way): timed by events."""


def inputs(operator: str, shape: tuple[int, int, int], heads: int, random: Callable[..., Tensor]) -> list[Tensor]:
    """Random tensors of shape `b t d` (attention: `b h t c`), and the factors of AFT-local's bias in float32."""
    b, t, d = shape
    if operator == "sdpa_causal":
        return [random(b, heads, t, d // heads) for _ in range(3)]
    found = [random(b, t, d) for _ in range(3)]
    if operator.startswith("local"):
        found += [random(t, RANK).float() * RANK**-0.25 for _ in range(2)]
    return found


def error(operator: str, window: int, tensors: list[Tensor]) -> float | None:
    """Relative error of some channels of the first sequence against float64; None for attention."""
    if operator == "sdpa_causal":
        return None
    found = OPERATORS[operator](window, *tensors)[:1, :, :CHECKED].double()
    query, key, value = (x[:1, :, :CHECKED] for x in tensors[:3])
    if operator.startswith("local"):
        bias = tensors[3].double() @ tensors[4].double().T
        right = reference.aft_local(query, key, value, bias, window, causal=True)
    else:
        right = reference.aft_simple(query, key, value, causal=operator != "simple")
    return float((found - right).norm() / right.norm())
