"""AFT-local of a few offsets: causal sums, and a gather for each offset that has a bias, O(T k d)."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from aft_lens.layers.mixers.aft_full import PairwiseAFT


class KeptOffsets(nn.Module):
    """A causal AFT layer whose w is 0 but at k offsets: Eq. 4 by running sums and k shifted copies of them.

    Equal to the layer with all other biases set to 0. Sums in float64, relative to each channel's largest key.
    """

    def __init__(self, layer: PairwiseAFT, w: Float[Tensor, "t k"], offset: Int[Tensor, "k"]) -> None:
        super().__init__()
        self.query, self.key, self.value, self.proj = layer.query, layer.key, layer.value, layer.proj
        self.register_buffer("w", w)
        self.register_buffer("offset", offset)

    w: Tensor
    offset: Tensor

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Mix the t tokens; `grid` is taken for the mixers' common signature and not used."""
        key, value = self.key(x).double(), self.value(x).double()
        weight = torch.exp(key - key.amax(1, keepdim=True))
        sums = torch.stack([weight * value, weight])
        total = sums.cumsum(2)
        for offset, w in zip(self.offset.tolist(), self.w.unbind(1), strict=True):
            length = x.shape[1] - offset
            if length > 0:
                total[:, :, offset:] += torch.expm1(w[offset : x.shape[1]]).unsqueeze(-1) * sums[:, :, :length]
        mean = (total[0] / total[1]).to(x.dtype)
        return self.proj(mean if self.query is None else torch.sigmoid(self.query(x)) * mean)
