"""AFT-simple and AFT-local one position at a time, for generation: constant state, equal to the causal forms.

The state carries (max, num, den) of everything read so far, as RWKV does, so it never overflows and no epsilon
hides a lost term. AFT-local keeps besides the last `window_size` keys and values, whose bias depends on the
distance; a source that leaves the window joins the running sums with weight e^0 (Eq. 4).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.ops.bias import BiasFactors
from aft_lens.ops.check import check_floating
from aft_lens.ops.gate import gate


class SimpleState(NamedTuple):
    """Everything read so far, `b d` each: the largest key, and the sums relative to it."""

    peak: Float[Tensor, "b d"]
    num: Float[Tensor, "b d"]
    den: Float[Tensor, "b d"]


class LocalState(NamedTuple):
    """`far` sums the sources that left the window; `key` and `value` are the last window_size, oldest first."""

    far: SimpleState
    key: Float[Tensor, "b r d"]
    value: Float[Tensor, "b r d"]
    position: int


def simple_state(
    batch: int, dim: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> SimpleState:
    """The state before the first position; float32 or wider, whatever the inputs are."""
    zero = torch.zeros(batch, dim, device=device, dtype=dtype)
    return SimpleState(torch.full_like(zero, float("-inf")), zero, zero.clone())


def local_state(
    batch: int, dim: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> LocalState:
    """The state before the first position; float32 or wider, whatever the inputs are."""
    empty = torch.zeros(batch, 0, dim, device=device, dtype=dtype)
    return LocalState(simple_state(batch, dim, device=device, dtype=dtype), empty, empty.clone(), 0)


def include(state: SimpleState, key: Float[Tensor, "b d"], value: Float[Tensor, "b d"]) -> SimpleState:
    """The sums with one more source of weight e^key; one of -inf is not read."""
    peak = torch.maximum(state.peak, key)
    reference = _finite(peak)
    old, new = torch.exp(state.peak - reference), torch.exp(key - reference)
    value = value.masked_fill(key == float("-inf"), 0.0)
    return SimpleState(peak, old * state.num + new * value, old * state.den + new)


def _finite(peak: Tensor) -> Tensor:
    """The largest key, 0 while none is readable."""
    return peak.masked_fill(peak == float("-inf"), 0.0)


def mean_of(state: SimpleState) -> Float[Tensor, "b d"]:
    """The mean of everything read; 0 where nothing is."""
    return state.num / state.den.masked_fill(state.den == 0, 1.0)


def window_mean(far: SimpleState, log: Float[Tensor, "b r d"], value: Float[Tensor, "b r d"]) -> Float[Tensor, "b d"]:
    """The mean over what is far and r sources of weight e^log; 0 where nothing is read."""
    peak = _finite(torch.maximum(far.peak, log.amax(1)))
    weight, old = torch.exp(log - peak.unsqueeze(1)), torch.exp(far.peak - peak)
    read = value.masked_fill(log == float("-inf"), 0.0)
    return mean_of(SimpleState(peak, old * far.num + (weight * read).sum(1), old * far.den + weight.sum(1)))


def aft_simple_step(
    query: Float[Tensor, "b d"] | None, key: Float[Tensor, "b d"], value: Float[Tensor, "b d"], state: SimpleState
) -> tuple[Float[Tensor, "b d"], SimpleState]:
    """Causal AFT-simple (Eq. 5) at the next position: the output and the new state, O(d) time and memory."""
    check_floating(query=query, key=key, value=value)
    state = include(state, key.to(state.num.dtype), value.to(state.num.dtype))
    return gate(query, mean_of(state), value.dtype), state


def aft_local_step(
    query: Float[Tensor, "b d"] | None,
    key: Float[Tensor, "b d"],
    value: Float[Tensor, "b d"],
    position_bias: Float[Tensor, "targets sources"] | BiasFactors,
    window_size: int,
    state: LocalState,
) -> tuple[Float[Tensor, "b d"], LocalState]:
    """Causal AFT-local (Eq. 4) at the next position: the output and the new state, O(window_size d).

    Raises ValueError past the last position that `position_bias` has, or if `window_size` is below 1.
    """
    check_floating(query=query, key=key, value=value)
    t = state.position
    length = len(position_bias.target) if isinstance(position_bias, BiasFactors) else len(position_bias)
    if window_size < 1:
        raise ValueError(f"window_size must be 1 or more, got {window_size}; without a window use aft_simple_step")
    if t >= length:
        raise ValueError(f"position_bias has {length} positions, and the state is at position {t}")
    dtype = state.key.dtype
    keys = torch.cat([state.key, key.to(dtype).unsqueeze(1)], 1)
    values = torch.cat([state.value, value.to(dtype).unsqueeze(1)], 1)
    far = state.far
    if keys.shape[1] > window_size:
        far = include(far, keys[:, 0], values[:, 0])
        keys, values = keys[:, 1:], values[:, 1:]
    first = t + 1 - keys.shape[1]
    if isinstance(position_bias, BiasFactors):
        w = position_bias.source[first : t + 1].to(dtype) @ position_bias.target[t].to(dtype)
    else:
        w = position_bias[t, first : t + 1].to(dtype)
    mean = window_mean(far, keys + w.unsqueeze(-1), values)
    return gate(query, mean, value.dtype), LocalState(far, keys, values, t + 1)
