"""Sums for biases on a 1-D band: chunk products near the diagonal, chunk sums beyond (AFT-local, 1-D AFT-conv).

Time is cut into n chunks of C >= window positions. Targets of chunk i meet the sources of chunks i-1, i (and, not
causal, i+1) by matrix products of C x C; every other source has weight e^0 and enters as prefix and suffix sums of
whole chunks. Time O(T C d), memory O(T (C + d)). Nothing is subtracted from a total.

Causal: as in `blocks`, chunk i refers to the maximum over the chunks before it, exponents inside it are clamped,
and targets that read a clamped (or overflowing) one are flagged by a denominator of 0.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from aft_lens.ops.forms.columns import LARGEST_EXPONENT, columns, drop_broken, finite, first_key, pull_columns
from aft_lens.ops.forms.spec import Spec

SMALLEST_CHUNK = 32


def chunks(length: int, reach: int) -> tuple[int, int]:
    """How many chunks, and how long: at least `reach` - 1 positions, the last one as full as can be."""
    count = max(1, length // max(SMALLEST_CHUNK, reach - 1))
    return count, -(-length // count)


class _Band:
    """Weights of the chunk pairs, `h n|1 t (j s)` for neighbours j, and their gradient."""

    def __init__(self, bias: list[Tensor], spec: Spec, length: int) -> None:
        self.bias, self.spec, self.length = bias, spec, length
        self.toeplitz = spec.form == "banded"
        self.reach = bias[0].shape[1] // 2 + 1 if self.toeplitz else spec.window
        self.count, self.chunk = chunks(length, self.reach)
        self.neighbours = (0,) if self.count == 1 else (-1, 0) if spec.causal else (-1, 0, 1)
        near = self.near = self._near()
        log = self._log_weights().masked_fill(~near, 0.0 if spec.outside == "global" else float("-inf"))
        if spec.causal:
            log = log.masked_fill(self.offset > 0, float("-inf"))
        peak = log.amax(-1, keepdim=True)
        self.peak = peak.clamp(min=0.0) if spec.outside == "global" else finite(peak)
        self.weight = (log - self.peak).exp_()
        self.outside = torch.exp(-self.peak).squeeze(-1).unsqueeze(1)

    def _near(self) -> Tensor:
        position = torch.arange(self.chunk, device=self.bias[0].device)
        source = torch.cat([position + j * self.chunk for j in self.neighbours])
        self.offset = source - position.unsqueeze(1)
        return self.offset.abs() < self.reach

    def _chunks(self, x: Tensor, shift: int) -> Tensor:
        """Rows of `t rank` by chunk, `n c rank`, the chunk `shift` further on (0 where there is none)."""
        size = self.count * self.chunk
        lead, tail = max(0, -shift) * self.chunk, max(0, shift) * self.chunk
        x = F.pad(x, (0, 0, lead, size - self.length + tail))
        return x[tail : tail + size].unflatten(0, (self.count, self.chunk))

    def _log_weights(self) -> Tensor:
        if self.toeplitz:
            w = self.bias[0]
            return w[:, (self.offset + w.shape[1] // 2).clamp(0, w.shape[1] - 1)].unsqueeze(1)
        if len(self.bias) == 2:
            target = self._chunks(self.bias[0], 0)
            return torch.cat([target @ self._chunks(self.bias[1], j).transpose(1, 2) for j in self.neighbours], -1)[
                None
            ]
        index = self._index()
        return self.bias[0].flatten()[index.clamp(min=0)].masked_fill(index < 0, 0.0).unsqueeze(0)

    def _index(self) -> Tensor:
        """Flat place in a T x T bias of every pair of the band, -1 off it."""
        start = torch.arange(self.count, device=self.near.device).view(-1, 1, 1) * self.chunk
        target = start + torch.arange(self.chunk, device=self.near.device).unsqueeze(1)
        source = target + self.offset
        inside = self.near & (target < self.length) & (source >= 0) & (source < self.length)
        return (target * self.length + source).masked_fill(~inside, -1)

    def part(self, i: int) -> Tensor:
        """Weights of the i-th neighbour, `h n|1 t s`."""
        return self.weight[..., i * self.chunk : (i + 1) * self.chunk]

    def pull(self, gradient: Tensor) -> list[Tensor]:
        """Gradients of the bias tensors from that of the weights, `h n|1 t (j s)`."""
        log = (gradient * self.weight).masked_fill_(~self.near, 0.0)
        if self.toeplitz:
            w = self.bias[0]
            place = (self.offset + w.shape[1] // 2).clamp(0, w.shape[1] - 1).flatten()
            return [torch.zeros_like(w).index_add_(1, place, log.flatten(1))]
        log = log[0]
        if len(self.bias) == 1:
            index = self._index().flatten()
            keep = index >= 0
            flat = torch.zeros_like(self.bias[0]).flatten()
            flat[index[keep]] = log.flatten()[keep]
            return [flat.view_as(self.bias[0])]
        target, grads = self._chunks(self.bias[0], 0), [torch.zeros_like(part) for part in self.bias]
        for i, j in enumerate(self.neighbours):
            block = log[..., i * self.chunk : (i + 1) * self.chunk]
            grads[0] += (block @ self._chunks(self.bias[1], j)).flatten(0, 1)[: self.length]
            source = (block.transpose(1, 2) @ target).flatten(0, 1)
            start = max(0, -j * self.chunk)
            moved = source[start : max(start, self.length - j * self.chunk)]
            grads[1][start + j * self.chunk : start + j * self.chunk + len(moved)] += moved
        return grads


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """`h N n s` times `h n|1 t s` over s: `h N n t`."""
    if weight.shape[1] == 1:
        h, columns_, n, size = x.shape
        return (x.reshape(h, columns_ * n, size) @ weight[:, 0].transpose(1, 2)).view(h, columns_, n, -1)
    return (x.transpose(1, 2) @ weight.transpose(2, 3)).transpose(1, 2)


def _outer(gradient: Tensor, x: Tensor, shared: bool) -> Tensor:
    """`h N n t` times `h N n s` over N (and n where shared): `h n|1 t s`."""
    if shared:
        return (gradient.flatten(1, 2).transpose(1, 2) @ x.flatten(1, 2)).unsqueeze(1)
    return gradient.permute(0, 2, 3, 1) @ x.transpose(1, 2)


def _moved(x: Tensor, steps: int) -> Tensor:
    """Along the chunks (dim 2): entry i becomes entry i + steps, 0 off the end."""
    if steps == 0:
        return x
    if abs(steps) >= x.shape[2]:
        return torch.zeros_like(x)
    out = torch.zeros_like(x)
    if steps > 0:
        out[:, :, :-steps] = x[:, :, steps:]
    else:
        out[:, :, -steps:] = x[:, :, :steps]
    return out


def _place(causal: bool, neighbour: int) -> int:
    """Which set of columns a neighbour reads."""
    return 1 if causal and neighbour == 0 else 0


class _Sources:
    """Key and value by chunk, and their columns as each neighbour sees them."""

    def __init__(self, key: Tensor, value: Tensor, band: _Band) -> None:
        pad = band.count * band.chunk - band.length
        split = (band.count, band.chunk)
        self.key = F.pad(key, (0, pad), value=float("-inf")).unflatten(-1, split)
        self.value = F.pad(value, (0, pad)).unflatten(-1, split)
        self.causal = band.spec.causal
        self.neighbours = band.neighbours
        if not self.causal:
            reference = finite(key.amax(-1, keepdim=True)).unsqueeze(-1)
            self.columns = [columns(self.key, self.value, reference)]
            return
        first = first_key(key)
        before = F.pad(self.key.amax(-1).cummax(-1).values, (1, 0), value=float("-inf"))
        before = finite(before, first)
        self.reference, limit = before[..., :-1], LARGEST_EXPONENT[key.dtype]
        self.over = self.key.cummax(-1).values - self.reference.unsqueeze(-1) > limit
        # A chunk seen by the next one (reference at or above all of it), and by itself (clamped).
        self.columns = [
            columns(self.key, self.value, before[..., 1:].unsqueeze(-1)),
            columns(self.key, self.value, self.reference.unsqueeze(-1), limit),
        ]
        self.over |= drop_broken(self.columns[1])
        step = before[..., 1:].double() - first.double()
        self.rise = step.exp()  # of the reference of chunk i + 1 over the first key

    def seen(self, neighbour: int) -> Tensor:
        """Columns `h N n s` of every chunk as the chunk `neighbour` before or after it sees them."""
        return self.columns[_place(self.causal, neighbour)].flatten(1, 2)

    def far(self) -> Tensor:
        """Sums over the chunks beyond the neighbours, `h N n`, in each chunk's own reference."""
        if not self.causal:
            total = self.columns[0].flatten(1, 2).sum(-1)
            before, after = total.cumsum(-1), total.flip(-1).cumsum(-1).flip(-1)
            return _moved(before, -2) + _moved(after, 2)
        total = self.columns[0].sum(-1).double() * self.rise.unsqueeze(2)
        return (
            (_moved_last(total.cumsum(-1), -2) / _moved_last(self.rise, -1, 1.0).unsqueeze(2))
            .to(self.value.dtype)
            .flatten(1, 2)
        )

    def pull_far(self, gradient: Tensor) -> Tensor:
        """Gradient of the sums of each chunk's columns (as the next chunk sees them, if causal), `h N n`."""
        if not self.causal:
            before, after = _moved(gradient, 2), _moved(gradient, -2)
            return before.flip(-1).cumsum(-1).flip(-1) + after.cumsum(-1)
        h, m, c = self.value.shape[:3]
        grad = gradient.view(h, m, c + 1, -1).double() / _moved_last(self.rise, -1, 1.0).unsqueeze(2)
        grad = _moved_last(grad, 2).flip(-1).cumsum(-1).flip(-1) * self.rise.unsqueeze(2)
        return grad.to(gradient.dtype).flatten(1, 2)


def _moved_last(x: Tensor, steps: int, fill: float = 0.0) -> Tensor:
    """Along the last dimension: entry i becomes entry i + steps, `fill` off the end."""
    out = torch.full_like(x, fill)
    if steps > 0:
        out[..., :-steps] = x[..., steps:]
    else:
        out[..., -steps:] = x[..., :steps]
    return out


def sums(key: Tensor, value: Tensor, bias: list[Tensor], spec: Spec) -> tuple[Tensor, Tensor]:
    """Numerator `h m c t` and denominator `h m t` from key `h m s` and value `h m c s`."""
    h, m, c, length = value.shape
    band = _Band(bias, spec, length)
    sources = _Sources(key, value, band)
    out = torch.zeros_like(sources.seen(0))
    for i, j in enumerate(band.neighbours):
        out += _product(_moved(sources.seen(j), j), band.part(i))
    if spec.outside == "global":
        out = out + sources.far().unsqueeze(-1) * band.outside
    out = out.view(h, m, c + 1, band.count, band.chunk)
    if spec.causal:
        out[:, :, c].masked_fill_(sources.over, 0.0)
    out = out.flatten(3)[..., :length]
    return out[:, :, :c], out[:, :, c]


def pull(
    key: Tensor, value: Tensor, bias: list[Tensor], spec: Spec, gradient: Tensor, *, with_bias: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Gradients of key, value and bias from the gradient of the sums, `h m c+1 t`."""
    length = value.shape[-1]
    band = _Band(bias, spec, length)
    sources = _Sources(key, value, band)
    pad = band.count * band.chunk - length
    gradient = F.pad(gradient, (0, pad)).flatten(1, 2).unflatten(-1, (band.count, band.chunk))
    back = [torch.zeros_like(gradient) for _ in sources.columns]
    blocks = []
    for i, j in enumerate(band.neighbours):
        seen, weight = sources.seen(j), band.part(i)
        back[_place(spec.causal, j)] += _moved(_product(gradient, weight.transpose(2, 3)), -j)
        if with_bias:
            blocks.append(_outer(gradient, _moved(seen, j), shared=weight.shape[1] == 1))
    if spec.outside == "global":
        back[0] += sources.pull_far((gradient * band.outside).sum(-1)).unsqueeze(-1)
    grad_key, grad_value = torch.zeros_like(sources.key), torch.zeros_like(sources.value)
    for mixed, moved in zip(sources.columns, back, strict=True):
        part_key, part_value = pull_columns(mixed, sources.value, moved.view(mixed.shape))
        grad_key += part_key
        grad_value += part_value
    grads = band.pull(torch.cat(blocks, -1)) if with_bias else []
    return grad_key.flatten(2)[..., :length], grad_value.flatten(3)[..., :length], grads
