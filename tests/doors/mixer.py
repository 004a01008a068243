"""A token mixer of another package, found by `mean = "mixer:MEAN"` in the group aft_lens.mixers."""

from collections.abc import Sequence

from torch import Tensor, nn

from aft_lens.layers.mixer import Mixer, MixerSpec


class Mean(nn.Module):
    """Every token becomes the mean of all, through one projection."""

    def __init__(self, spec: MixerSpec) -> None:
        super().__init__()
        self.proj = nn.Linear(spec.dim, spec.dim)

    def forward(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        """x is `b t d`, grid the (rows, columns) of its tokens."""
        return self.proj(x.mean(1, keepdim=True)).expand_as(x)


MEAN = Mixer(Mean, "mean", pooled=True, any_size=True)
