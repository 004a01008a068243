r"""Targets one by one, each with the joint maximum of key and bias: exact for any finite input, for the few that ask.

For a target t of head h and row m, with r = max_s (K_s + w_ts) over the sources that it reads,

    p_s = e^(K_s + w_ts - r) / sum,    mean = sum_s p_s V_s
    dV_s = p_s g,    d(K_s + w_ts) = p_s (g . V_s - g . mean)

in float64, `PAIRS` pairs of target and source at a time. O(T c) a target; no weight of another target is made.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from aft_lens.ops.forms.spec import Spec

PAIRS = 2**20
"""Pairs of target and source, times channels, held at once."""

Where = tuple[Tensor, Tensor, Tensor]
"""Head, row and target of each target, `n` each."""


class _Bias:
    """w of any targets against all sources, and its gradient: by pair (one tensor or two factors) or by offset."""

    def __init__(self, bias: Sequence[Tensor], spec: Spec, length: int) -> None:
        self.bias, self.spec = bias, spec
        self.by_offset = spec.form in ("matmul", "convolution", "banded")
        self.source = torch.arange(length, device=bias[0].device)

    def _place(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Place in the flat window of every pair, and whether it lies in it: `n s` each."""
        index = torch.zeros_like(target.unsqueeze(1) + self.source)
        inside = torch.ones_like(index, dtype=torch.bool)
        step = self.source.numel()
        for side, window in zip(self.spec.grid, self.bias[0].shape[1:], strict=True):
            step //= side
            offset = self.source // step % side - (target // step % side).unsqueeze(1) + window // 2
            inside &= (offset >= 0) & (offset < window)
            index = index * window + offset.clamp(0, window - 1)
        return index, inside

    def _near(self, target: Tensor) -> Tensor | None:
        if self.spec.window < 0:
            return None
        return (self.source - target.unsqueeze(1)).abs() < self.spec.window

    def log(self, head: Tensor, target: Tensor) -> Tensor:
        """w `n s`, -inf where a pair is cut off."""
        if self.by_offset:
            index, inside = self._place(target)
            w = self.bias[0].flatten(1)[head.unsqueeze(1), index]
            w = w.masked_fill(~inside, 0.0 if self.spec.outside == "global" else float("-inf"))
        else:
            w = self.bias[0][target] if len(self.bias) == 1 else self.bias[0][target] @ self.bias[1].T
            near = self._near(target)
            w = w if near is None else w.masked_fill(~near, 0.0)
        return w.masked_fill(self.source > target.unsqueeze(1), float("-inf")) if self.spec.causal else w

    def pull(self, head: Tensor, target: Tensor, gradient: Tensor, grads: Sequence[Tensor]) -> None:
        """Add the gradient of w, `n s`, to those of the tensors that it was made from."""
        if self.by_offset:
            index, inside = self._place(target)
            flat = index + head.unsqueeze(1) * grads[0][0].numel()
            grads[0].view(-1).index_add_(0, flat.flatten(), (gradient * inside).flatten())
            return
        near = self._near(target)
        gradient = gradient if near is None else gradient * near
        if len(grads) == 1:
            grads[0].index_add_(0, target, gradient)
        else:
            grads[0].index_add_(0, target, gradient @ self.bias[1])
            grads[1].add_(gradient.T @ self.bias[0][target])


def _parts(pairs: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one entry a target, as many targets at a time as may be held, `pairs` of each."""
    size = max(1, PAIRS // pairs)
    yield from zip(*(tensor.split(size) for tensor in tensors), strict=True)


def _weights(key: Tensor, bias: _Bias, part: Where) -> tuple[Tensor, Tensor]:
    """Weights `n s` that sum to 1, or are 0 where nothing is read; and which pairs are not read."""
    head, row, target = part
    score = key[head, row].double() + bias.log(head, target)
    unread = score == float("-inf")
    score = score.masked_fill(unread.all(1, keepdim=True), 0.0)
    return torch.softmax(score, 1).masked_fill(unread, 0.0), unread


def means(key: Tensor, value: Tensor, bias: Sequence[Tensor], spec: Spec, where: Where) -> Tensor:
    """Mean `n c` of the values of each target; key `h m s`, value `h m c s`, bias in float64."""
    made = _Bias(bias, spec, key.shape[-1])
    found = []
    for head, row, target in _parts(value.shape[2:].numel(), *where):
        weight, unread = _weights(key, made, (head, row, target))
        read = value[head, row].double().masked_fill(unread.unsqueeze(1), 0.0)
        found.append(torch.einsum("ns,ncs->nc", weight, read))
    return torch.cat(found)


def pull(
    key: Tensor,
    value: Tensor,
    bias: Sequence[Tensor],
    spec: Spec,
    where: Where,
    gradient: Tensor,
    grads: Sequence[Tensor],
) -> None:
    """Add to `grads`, of key, value and (if they are there) the bias, what the gradient `n c` of the means brings."""
    made = _Bias(bias, spec, key.shape[-1])
    for head, row, target, part in _parts(value.shape[2:].numel(), *where, gradient):
        weight, unread = _weights(key, made, (head, row, target))
        read = value[head, row].double().masked_fill(unread.unsqueeze(1), 0.0)
        along = torch.einsum("nc,ncs->ns", part, read)
        log = weight * (along - (weight * along).sum(1, keepdim=True))
        place = head * key.shape[1] + row
        grads[0].view(-1, grads[0].shape[-1]).index_add_(0, place, log)
        grads[1].view(-1, *grads[1].shape[2:]).index_add_(0, place, part.unsqueeze(2) * weight.unsqueeze(1))
        if len(grads) > 2:
            made.pull(head, target, log, grads[2:])
