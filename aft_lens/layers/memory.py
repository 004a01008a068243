"""Reading one token at a time: what a causal mixer remembers, and where in the sequence it is.

Memories are tensors of a fixed size that a step changes in place, so that steps can be compiled and captured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aft_lens.ops import SimpleState, aft_simple_step, include, simple_state, window_mean
from aft_lens.ops.gate import gate


@dataclass(frozen=True)
class Place:
    """The position that a step reads at."""

    index: Int[Tensor, "1"]
    """On the model's device: what a captured step reads it from."""
    reach: int
    """Positions up to and with this one, which caches are read over."""

    @classmethod
    def at(cls, position: int, device: torch.device | str = "cpu") -> "Place":
        """The place of a position that the host knows."""
        return cls(torch.tensor([position], device=device), position + 1)


class Memory:
    """What a mixer remembers of what it read; a step changes it in place."""

    constant: ClassVar[bool] = True
    """Whether a step takes as long at any position, so that one captured step serves all."""
    fused: bool = False
    """Whether the step's small operations are compiled into few kernels, which pays on GPUs."""
    joint: tuple[Tensor, Tensor] | None = None
    """Weight and bias of several projections side by side, where they are computed in one; as they are at `begin`."""

    def _run(self, step: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        return (_compiled(step) if self.fused else step)(*inputs)


@cache
def _compiled(step: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(step, dynamic=False)


class SumMemory(Memory):
    """Everything read so far as sums relative to the largest key, `b d` each: AFT-simple's state, O(d)."""

    def __init__(self, batch: int, dim: int, device: torch.device) -> None:
        self.state = simple_state(batch, dim, device=device)

    def read(
        self, query: Float[Tensor, "b d"] | None, key: Float[Tensor, "b d"], value: Float[Tensor, "b d"], place: Place
    ) -> Float[Tensor, "b d"]:
        """Eq. 5 at the next position, this source included; the value's dtype."""
        return self._run(_simple_step, query, key, value, *self.state)


class WindowMemory(Memory):
    """AFT-local's state, O(s d): the last s keys and values in a ring, and the sums of those that left it (Eq. 4).

    `bias` is w by target and distance 0 ... s - 1.
    """

    def __init__(self, batch: int, dim: int, bias: Float[Tensor, "t s"]) -> None:
        self.bias = bias
        self.far = simple_state(batch, dim, device=bias.device)
        self.ring = torch.zeros(batch, bias.shape[1], 2, dim, device=bias.device)
        """Keys and values by slot, `b s 2 d`; the source of position t is in slot t mod s."""
        self.ring[:, :, 0] = float("-inf")

    def read(
        self, query: Float[Tensor, "b d"] | None, key: Float[Tensor, "b d"], value: Float[Tensor, "b d"], place: Place
    ) -> Float[Tensor, "b d"]:
        """Eq. 4 at the next position, this source included; the value's dtype."""
        w = self.bias.index_select(0, place.index)[0]
        slot = place.index % self.ring.shape[1]
        leaving = self.ring.index_select(1, slot)
        # Written here: compiled, one row's write would copy the ring.
        self.ring.index_copy_(1, slot, torch.stack([key, value], 1).to(self.ring.dtype).unsqueeze(1))
        return self._run(_local_step, query, value, leaving, self.ring, w, slot, *self.far)


class CacheMemory(Memory):
    """Named tensors of every position, `b h t c`: keys and values of attention, O(t d)."""

    constant = False

    def __init__(self, **caches: Float[Tensor, "b h t c"]) -> None:
        self.caches = caches

    def write(self, place: Place, **rows: Float[Tensor, "b h c"]) -> list[Float[Tensor, "b h reach c"]]:
        """Each cache up to the place, this row included, in the order of the names given."""
        for name, row in rows.items():
            self.caches[name].index_copy_(2, place.index, row.unsqueeze(2).to(self.caches[name].dtype))
        return [self.caches[name][:, :, : place.reach] for name in rows]


class MatrixMemory(Memory):
    """The Linear Transformer's state: sums of key times value, `b h m c`, the last column those of the keys."""

    def __init__(self, batch: int, heads: int, features: int, channels: int, device: torch.device) -> None:
        self.sums = torch.zeros(batch, heads, features, channels + 1, device=device)


def _simple_step(query: Tensor | None, key: Tensor, value: Tensor, *sums: Tensor) -> Tensor:
    out, state = aft_simple_step(query, key, value, SimpleState(*sums))
    _keep(sums, state)
    return out


def _local_step(
    query: Tensor | None, value: Tensor, leaving: Tensor, ring: Tensor, w: Tensor, slot: Tensor, *sums: Tensor
) -> Tensor:
    """The mean over the ring, the target's own source included, and what is far, the source that leaves included."""
    window = ring.shape[1]
    far = include(SimpleState(*sums), leaving[:, 0, 0], leaving[:, 0, 1])
    _keep(sums, far)
    bias = w[(slot - torch.arange(window, device=ring.device)) % window]
    return gate(query, window_mean(far, ring[:, :, 0] + bias.unsqueeze(-1), ring[:, :, 1]), value.dtype)


def _keep(sums: tuple[Tensor, ...], state: SimpleState) -> None:
    for kept, new in zip(sums, state, strict=True):
        kept.copy_(new)
