"""How heads without query and key read patches: a few offsets by gathering, a whole map, a kernel, or all alike.

Tables that follow from weights and grid are made when the weights come, and are not saved.
"""

import re
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from aft_lens.ops import expand_bias
from aft_lens.ops.bias import source_index

GATHERS = 8
"""Offsets a head up to which they are gathered; more are one matrix product over all patches."""
FLOOR = 1e-12
"""Smallest entry of a map, as a fraction of the uniform share: no target reads nothing."""
SIDE = 3
"""Of kernels, in patches."""


@dataclass(frozen=True)
class Slots:
    """Where the values of some heads lie in what a layer's joint projection gives, `b t slot c`."""

    heads: int
    """How many there are."""
    start: int
    """Slot of the first."""
    count: int
    """Slots in all."""
    prefix: int
    """Tokens before the patches."""
    grid: tuple[int, int]
    channels: int
    """c."""

    @property
    def patches(self) -> int:
        """n."""
        return self.grid[0] * self.grid[1]

    def values(self, projected: Float[Tensor, "b t slot c"]) -> Float[Tensor, "b n h c"]:
        """Of the patches, of these heads."""
        return projected[:, self.prefix :, self.start : self.start + self.heads]


class HeadReader(nn.Module):
    """Heads of one kind: from the joint projection, `b t slot c`, what they read of the patches, `b n h c`."""

    share: Tensor
    """What patches get of a patch's attention, `h`; the rest is the prefix tokens'."""

    def __init__(self, slots: Slots) -> None:
        super().__init__()
        self.slots = slots

    @abstractmethod
    def forward(self, projected: Float[Tensor, "b t slot c"]) -> Float[Tensor, "b n h c"]:
        """What the heads read of the patches."""

    def tables(self) -> None:
        """Make what follows from the weights; called whenever they came."""

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self.tables()


class Gathered(HeadReader):
    """k offsets a head in fixed proportions, renormalised where some lie beyond the border.

    A target whose sources all lie beyond it reads all patches alike. It is one gather of rows of c numbers, in the
    layout that the projection leaves.
    """

    offset: Int[Tensor, "h k 2"]
    """Source minus target, (rows, columns)."""
    weight: Float[Tensor, "h k"]
    """0 or more."""
    index: Tensor
    """Row of `(t slot) c` that a target reads, `(n h k)`."""
    factor: Tensor
    """How much of it, `n h k 1`, the share of the patches in it."""
    lost: Tensor | None
    """That share for targets that read all patches alike, else 0, `n h 1`; None where there are none."""

    def __init__(self, slots: Slots, keep: int) -> None:
        super().__init__(slots)
        self.register_buffer("offset", torch.zeros(slots.heads, keep, 2, dtype=torch.int64))
        self.register_buffer("weight", torch.ones(slots.heads, keep))
        self.register_buffer("share", torch.ones(slots.heads))
        for name in ("index", "factor", "lost"):
            self.register_buffer(name, None, persistent=False)
        self.tables()

    def tables(self) -> None:
        """Places and weights for each target."""
        if self.weight.is_meta:
            return
        place, inside = source_index(self.offset, self.slots.grid)  # h k n
        weight = self.weight.double()[..., None] * inside
        total = weight.sum(1, keepdim=True)
        share = self.share.double()[:, None, None]
        head = torch.arange(self.slots.heads, device=place.device)[:, None, None]
        rows = (place + self.slots.prefix) * self.slots.count + self.slots.start + head
        self.index = rows.permute(2, 0, 1).flatten()
        factor = (share * weight / total).where(total > 0, 0.0)
        self.factor = factor.permute(2, 0, 1)[..., None].contiguous().to(self.weight)
        lost = (share * (total == 0))[:, 0].T[..., None]
        self.lost = lost.contiguous().to(self.weight) if bool(lost.any()) else None

    def forward(self, projected: Tensor) -> Tensor:
        """As the class says."""
        picked = projected.flatten(1, 2).index_select(1, self.index)
        picked = picked.unflatten(1, (self.slots.patches, self.slots.heads, -1))
        factor = self.factor.to(picked)
        read = picked[:, :, :, 0] * factor[:, :, 0] if factor.shape[2] == 1 else (picked * factor).sum(3)
        if self.lost is not None:
            read = read + self.lost.to(read) * self.slots.values(projected).mean(1, keepdim=True)
        return read


class Mapped(HeadReader):
    """A map over all offsets, renormalised for each target: one matrix product."""

    map: Float[Tensor, "h dy dx"]
    """0 or more; `2H-1 2W-1`."""
    matrix: Tensor
    """`h n n`, the share of the patches in it."""

    def __init__(self, slots: Slots) -> None:
        super().__init__(slots)
        self.register_buffer("map", torch.ones(slots.heads, *(2 * side - 1 for side in slots.grid)))
        self.register_buffer("share", torch.ones(slots.heads))
        self.register_buffer("matrix", None, persistent=False)
        self.tables()

    def tables(self) -> None:
        """The map written out."""
        if self.map.is_meta:
            return
        pairs = expand_bias(self.map.double().clamp(min=FLOOR / self.slots.patches), self.slots.grid)
        self.matrix = (self.share.double()[:, None, None] * pairs / pairs.sum(-1, keepdim=True)).to(self.map)

    def forward(self, projected: Tensor) -> Tensor:
        """As the class says."""
        values = self.slots.values(projected).transpose(1, 2)
        return (self.matrix.to(values) @ values).transpose(1, 2)


class Convolved(HeadReader):
    """A 3 x 3 depth-wise kernel with a constant for each channel, zeros beyond the border."""

    def __init__(self, slots: Slots) -> None:
        super().__init__(slots)
        channels = slots.heads * slots.channels
        self.weight = nn.Parameter(torch.zeros(channels, 1, SIDE, SIDE))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, projected: Tensor) -> Tensor:
        """As the class says."""
        image = self.slots.values(projected).flatten(2).transpose(1, 2).unflatten(2, self.slots.grid)
        weight, bias = self.weight.to(image), self.bias.to(image)
        found = F.conv2d(image, weight, bias, padding=SIDE // 2, groups=len(weight))
        return found.flatten(2).transpose(1, 2).unflatten(2, (self.slots.heads, self.slots.channels))


class Pooled(HeadReader):
    """All patches alike."""

    def __init__(self, slots: Slots) -> None:
        super().__init__(slots)
        self.register_buffer("share", torch.ones(slots.heads))

    def forward(self, projected: Tensor) -> Tensor:
        """As the class says."""
        values = self.slots.values(projected)
        return (values.mean(1, keepdim=True) * self.share.to(values)[:, None]).expand_as(values)


KINDS: dict[str, type[HeadReader]] = {"map": Mapped, "kernel": Convolved, "uniform": Pooled}


def offsets_kept(word: str) -> int:
    """K of offsets:K, 0 for the words of `KINDS`; ValueError, with what there is, on another."""
    counted = re.fullmatch(r"offsets:([1-9]\d{0,6})", word)
    if not counted and word not in KINDS:
        raise ValueError(
            f"heads must be attention, offsets:K (K of 1 or more), {', '.join(KINDS)}, mean or zero, got {word!r:.80}"
        )
    return int(counted[1]) if counted else 0


def head_reader(word: str, slots: Slots) -> HeadReader:
    """The module of the heads that a word stands for."""
    keep = offsets_kept(word)
    if not keep:
        return KINDS[word](slots)
    return Gathered(slots, keep) if keep <= GATHERS else Mapped(slots)
