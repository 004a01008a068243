r"""AFT-conv whose heads keep one offset each: two shares for every source, read at the offset; exact for any w.

The source s at a target's offset decides what the target gets: the others' mean M_s and the source's own value,

    out_t = q_s M_s + p_s V_s,    p_s = sigmoid(w + K_s - log sum_{r != s} e^K_r),    q_s = 1 - p_s    (s = s(t))

or the mean over all where the offset leaves the grid. The others' sums are the total less s, with e = e^(K - max):

    E_s = E - e_s,    N_s = N - e_s V_s,    M_s = N_s / E_s

At least half of E is left unless s is the source of the largest key, whose own sums leave it out from the start and
are relative to the largest of the other keys. So nothing is the small difference of two large numbers, no e^w is
needed, and w may be any number. The sigmoid's argument is taken in float64, as w and K_s may cancel. Where |w|
is small, `forms.one_offset_mild` gives the same numbers in half the time.

With sums of n terms within (log n + c) u of theirs, u = 2^-24 in float32, M_s and E_s are within 2 (log n + c) u of the
pool's mean of |V| and of themselves, which moves p_s q_s <= 1/4 of |V_s - M_s| by as much: an error is at most a few
u log n of the pool's mean of |V| and of |V_s|, whatever w and K are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from aft_lens.ops.bias import source_index
from aft_lens.ops.forms.in_place import chunks, images_a_chunk
from aft_lens.ops.forms.one_offset_mild import is_mild, mild, mild_in_place
from aft_lens.ops.forms.spec import unnarrowed
from aft_lens.ops.transforms import unseen


def _places(offset: Tensor, grid: torch.Size) -> Tensor:
    """Source of each target, the number of positions where there is none: `h t`."""
    flat, inside = source_index(offset, grid)
    return flat.masked_fill(~inside, grid.numel())[:, 0]


def _readers(offset: Tensor, grid: torch.Size) -> Tensor:
    """Target that reads each source, the number of positions where there is none: `h s`."""
    return _places(-offset, grid)


class _Pool:
    """Sums over all sources and over all but the one of the largest key, `b h 1` and `b h c 1`, relative to e^peak."""

    def __init__(self, key: Tensor, value: Tensor) -> None:
        self.largest, self.top = key.max(-1, keepdim=True)
        others = key.scatter(-1, self.top, float("-inf"))
        second = others.amax(-1, keepdim=True)
        self.dead = self.largest == float("-inf")
        """Where no key is readable."""
        self.alone = second == float("-inf")
        """Where one key at most is."""
        self.peak = self.largest.masked_fill(self.dead, 0.0).detach()
        self.second = torch.where(self.alone, self.peak, second).detach()
        self.first = torch.exp(self.largest - self.peak)  # 1; 0 if dead, NaN if the key is no number
        self.weight = torch.exp(others - self.second)
        """e^K of all but the largest, relative to the second largest."""
        self.fall = torch.exp(self.second - self.peak)
        column = self.top.unsqueeze(2).expand(*value.shape[:3], 1)
        best = value.gather(3, column) * self.first.unsqueeze(2)
        with unnarrowed(key):
            rest = value @ self.weight.unsqueeze(3)
        self.rest = rest.masked_fill(self.alone.unsqueeze(2), 0.0)
        self.rest_den = self.weight.sum(-1, keepdim=True)
        self.num = best + self.rest * self.fall.unsqueeze(2)
        self.den = (self.first + self.rest_den * self.fall).masked_fill(self.dead, 1.0)


def _shares(pool: _Pool, key: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """What a target takes of the pool's numerator, and of the value that it reads, by source: `b h s` each.

    The source of the largest key has its share of the numerator without it.
    """
    weight = pool.weight * pool.fall
    left = (pool.den - weight).masked_fill(pool.dead, 1.0).scatter(-1, pool.top, 1.0)
    share = torch.sigmoid(w.double() + (key.double() - pool.peak.double()) - torch.log(left).double())
    others = (1 - share).to(key.dtype) / left
    own = share.to(key.dtype) - others * weight
    rest_den = pool.rest_den.masked_fill(pool.alone, 1.0)
    at_top = w.double() + (pool.largest.double() - pool.second.double()) - torch.log(rest_den).double()
    share = torch.sigmoid(at_top.masked_fill(pool.alone & (w != float("-inf")), float("inf")))
    others = others.scatter(-1, pool.top, (1 - share).to(key.dtype) / rest_den)
    return others, own.scatter(-1, pool.top, share.to(key.dtype) * pool.first.detach())


def one_offset(key: Tensor, value: Tensor, w: Tensor, offset: Tensor, grid: torch.Size) -> Tensor:
    """Weighted mean `b h c t` of key `b h t`, value `b h c t` and w `h 1`; any finite w and keys."""
    places = _places(offset, grid)
    if not unseen(w) and is_mild(key, w):
        return mild(key, value, w, places)
    pool = _Pool(key, value)
    others, own = _shares(pool, key, w)
    others, own = torch.cat([others, pool.den.reciprocal()], -1), F.pad(own, (0, 1))
    place = places.expand(*key.shape[:2], -1)
    num = torch.where((place == pool.top).unsqueeze(2), pool.rest, pool.num)
    read = value.gather(3, place.clamp(max=key.shape[-1] - 1).unsqueeze(2).expand(value.shape))
    mean = others.gather(-1, place).unsqueeze(2) * num + own.gather(-1, place).unsqueeze(2) * read
    return mean.masked_fill(pool.dead.unsqueeze(2), 0.0)


def one_offset_in_place(
    query: Tensor | None, key: Tensor, value: Tensor, w: Tensor, offset: Tensor, grid: torch.Size
) -> Tensor:
    """`one_offset` and the gate, a few images at a time in reused memory: fresh memory costs more than the sums."""
    places, t = _places(offset, grid), key.shape[-1]
    if is_mild(key, w):
        return mild_in_place(query, key, value, w, places)
    readers = _readers(offset, grid)
    read = places.clamp(max=t - 1).unsqueeze(1)
    mean = torch.empty_like(value)
    size = images_a_chunk(value)
    spare = torch.empty_like(value[:size])
    for k, v, out, q in chunks(size, query, key, value, mean):
        pool = _Pool(k, v)
        others, own = _shares(pool, k, w)
        others, own = torch.cat([others, pool.den.reciprocal()], -1), F.pad(own, (0, 1))
        torch.gather(v, 3, read.expand(v.shape), out=out)
        others, own = (share.gather(-1, places.expand(k.shape)).unsqueeze(2) for share in (others, own))
        # Of the target that reads the largest key, if there is one: elsewhere what is there is written again.
        reader = readers.expand(k.shape).gather(-1, pool.top).unsqueeze(2)
        nowhere, reader = reader == t, reader.clamp(max=t - 1)
        column = reader.expand(*v.shape[:3], 1)
        num = torch.where(nowhere, pool.num, pool.rest) * others.gather(3, reader)
        fixed = num + out.gather(3, column) * own.gather(3, reader)
        out.mul_(own).addcmul_(pool.num, others).scatter_(3, column, fixed)
        if bool(pool.dead.any()):
            out.masked_fill_(pool.dead.unsqueeze(2), 0.0)
        if q is not None:
            out.mul_(torch.sigmoid(q.to(out.dtype), out=spare[: len(k)]))
    return mean
