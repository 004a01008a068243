"""Position biases by pair, a block of targets at a time: dense, factorized (Eq. 7) and on a grid (Eq. 4).

A block is handed out as its weights e^(w - r), r the row's maximum (no gradient: it cancels in num / den), and
takes back the gradient with respect to w of the same block. Nothing T x T is held but what the user gave.
"""

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.ops.forms.columns import finite
from aft_lens.ops.forms.spec import Spec


@runtime_checkable
class PairBias(Protocol):
    """Weights of any block of targets against the first sources, and their gradient."""

    heads: int

    def weights(self, start: int, stop: int, sources: int) -> Float[Tensor, "h t s"]:
        """e^(w - r) of targets start..stop against sources 0..sources; 0 where a pair is cut off."""

    def pull(self, start: int, stop: int, gradient: Float[Tensor, "h t s"]) -> None:
        """Add the gradient with respect to w (already times the weights) of a block."""

    def gradients(self) -> list[Tensor]:
        """The gradients of the tensors that the bias was made from."""


def future(start: int, stop: int, sources: int, device: torch.device) -> Tensor:
    """True where a source comes after its target, shape `t s`."""
    return torch.arange(sources, device=device) > torch.arange(start, stop, device=device).unsqueeze(1)


class MatrixBias:
    """w given whole (one tensor, `t s`) or as u, v of Eq. 7 (two, `t rank`); Eq. 4's window cuts it to 0."""

    heads = 1

    def __init__(self, bias: list[Tensor], spec: Spec) -> None:
        self.bias, self.spec = bias, spec
        self.gradient: list[Tensor] = []

    def _near(self, start: int, stop: int, sources: int) -> Tensor | None:
        if self.spec.window < 0:
            return None
        device = self.bias[0].device
        target = torch.arange(start, stop, device=device).unsqueeze(1)
        return (torch.arange(sources, device=device) - target).abs() < self.spec.window

    def weights(self, start: int, stop: int, sources: int) -> Tensor:
        """e^(w - row maximum)."""
        if len(self.bias) == 1:
            w = self.bias[0][start:stop, :sources]
        else:
            w = self.bias[0][start:stop] @ self.bias[1][:sources].T
        near = self._near(start, stop, sources)
        if near is not None:
            w = w.masked_fill(~near, 0.0)
        if self.spec.causal:
            w = w.masked_fill(future(start, stop, sources, w.device), float("-inf"))
        peak = finite(w.amax(-1, keepdim=True))
        given = len(self.bias) == 1 and near is None and not self.spec.causal  # then w is the user's
        return torch.sub(w, peak, out=None if given else w).exp_().unsqueeze(0)

    def pull(self, start: int, stop: int, gradient: Tensor) -> None:
        """Add a block's gradient to w's, or to u's and v's by the product rule."""
        block, sources = gradient[0], gradient.shape[-1]
        near = self._near(start, stop, sources)
        if near is not None:
            block = block * near
        if block.shape == self.bias[0].shape and len(self.bias) == 1:
            self.gradient = [block]
            return
        self.gradient = self.gradient or [torch.zeros_like(part) for part in self.bias]
        if len(self.bias) == 1:
            self.gradient[0][start:stop, :sources] = block
        else:
            self.gradient[0][start:stop] += block @ self.bias[1][:sources]
            self.gradient[1][:sources] += block.T @ self.bias[0][start:stop]

    def gradients(self) -> list[Tensor]:
        """The gradient of each part."""
        return self.gradient


class GridBias:
    """w of AFT-conv, `h *window`, written out to the pairs of a grid a few targets at a time."""

    def __init__(self, bias: list[Tensor], spec: Spec) -> None:
        w = bias[0]
        self.heads = w.shape[0]
        self.spec = spec
        self.shape = w.shape
        w = w if w.ndim == 3 else w.unsqueeze(2)
        rows, cols = self.size = (spec.grid[0], spec.grid[1] if len(spec.grid) == 2 else 1)
        self.radius = [side // 2 for side in w.shape[1:]]
        reach = self.reach = [min(r, size - 1) for r, size in zip(self.radius, self.size, strict=True)]
        self.table = w.new_full(
            (self.heads, 2 * rows - 1, 2 * cols - 1), 0.0 if spec.outside == "global" else float("-inf")
        )
        self.table[:, rows - 1 - reach[0] : rows + reach[0], cols - 1 - reach[1] : cols + reach[1]] = w[
            :,
            self.radius[0] - reach[0] : self.radius[0] + reach[0] + 1,
            self.radius[1] - reach[1] : self.radius[1] + reach[1] + 1,
        ]
        peak = finite(self.table.flatten(1).amax(1))
        self.table = (self.table - peak.view(-1, 1, 1)).exp_().flatten(1)
        self.gradient = torch.zeros_like(w)

    def weights(self, start: int, stop: int, sources: int) -> Tensor:
        """e^(w - the head's maximum)."""
        rows, cols = self.size
        device = self.table.device
        target = torch.arange(start, stop, device=device).unsqueeze(1)
        source = torch.arange(sources, device=device)
        index = (source // cols - target // cols + rows - 1) * (2 * cols - 1) + source % cols - target % cols + cols - 1
        weight = self.table[:, index]
        if self.spec.causal:
            weight.masked_fill_(future(start, stop, sources, device), 0.0)
        return weight

    def pull(self, start: int, stop: int, gradient: Tensor) -> None:
        """Sum a block's gradient over the pairs at each offset."""
        rows, cols = self.size
        first, last = start // cols, -(-stop // cols)
        if start % cols or stop % cols or gradient.shape[-1] < rows * cols:
            whole = gradient.new_zeros(self.heads, (last - first) * cols, rows * cols)
            whole[:, start - first * cols : stop - first * cols, : gradient.shape[-1]] = gradient
            gradient = whole
        block = gradient.view(self.heads, last - first, cols, rows, cols)
        for dy in range(-self.reach[0], self.reach[0] + 1):
            if not -last < dy < rows - first:
                continue
            shifted = block.diagonal(dy + first, 1, 3).sum(-1)
            for dx in range(-self.reach[1], self.reach[1] + 1):
                self.gradient[:, dy + self.radius[0], dx + self.radius[1]] += shifted.diagonal(dx, 1, 2).sum(-1)

    def gradients(self) -> list[Tensor]:
        """The gradient of w."""
        return [self.gradient.reshape(self.shape)]


def pair_bias(bias: list[Tensor], spec: Spec) -> PairBias:
    """The bias object of a form."""
    return GridBias(bias, spec) if spec.form == "matmul" else MatrixBias(bias, spec)
