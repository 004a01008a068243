"""Windows of a grid, shifted or not, in the frame of the whole grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Where the patches of a layer's windows lie; b images of w windows of a patches each, t patches in all."""

    places: Int[Tensor, "w a"]
    """The patches of each window, by their number in raster order of the grid."""

    @classmethod
    def of(cls, grid: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> "Windows":
        """Windows of (rows, columns) of a grid that is moved up and left by `shift` first, as Swin does.

        Raises ValueError unless the windows fill the grid.
        """
        if any(side % part for side, part in zip(grid, window)):
            raise ValueError(
                f"windows of {tuple(window)} do not fill a grid of {tuple(grid)}; take images of the size that the "
                "model was made for"
            )
        numbers = torch.arange(grid[0] * grid[1]).reshape(*grid).roll([-step for step in shift], (0, 1))
        parts = numbers.reshape(grid[0] // window[0], window[0], grid[1] // window[1], window[1])
        return cls(parts.transpose(1, 2).reshape(-1, window[0] * window[1]))

    @classmethod
    def spread(cls, grid: Sequence[int], parts: Sequence[int]) -> "Windows":
        """As many sources (rows, columns) a window as `parts` says, evenly over the grid, as MaxViT has them.

        Raises ValueError unless the grid is a multiple of them.
        """
        if any(side % part for side, part in zip(grid, parts)):
            raise ValueError(f"{tuple(parts)} sources cannot be spread evenly over a grid of {tuple(grid)}")
        numbers = torch.arange(grid[0] * grid[1]).reshape(parts[0], grid[0] // parts[0], parts[1], grid[1] // parts[1])
        return cls(numbers.permute(1, 3, 0, 2).reshape(-1, parts[0] * parts[1]))

    def whole(self, weights: Float[Tensor, "bw h a a2"]) -> Float[Tensor, "b h t s"]:
        """Weights within windows as weights over the whole grid, 0 where a target does not see a source."""
        place = self.places.to(weights.device)
        (count, area), heads, t = place.shape, weights.shape[1], place.numel()
        found = weights.new_zeros(len(weights) // count, heads, t, t)
        inside = weights.reshape(-1, count, heads, area, area).transpose(1, 2)
        found[:, :, place[:, :, None], place[:, None, :]] = inside
        return found

    def merged(self, cut: Float[Tensor, "bw a d"]) -> Float[Tensor, "b t d"]:
        """Patches of windows in raster order of the grid."""
        place = self.places.to(cut.device).flatten()
        cut = cut.reshape(-1, len(place), cut.shape[-1])
        found = torch.empty_like(cut)
        found[:, place] = cut
        return found

    def cut(self, merged: Float[Tensor, "b t d"]) -> Float[Tensor, "bw a d"]:
        """The reverse of `merged`."""
        place = self.places.to(merged.device)
        return merged[:, place.flatten()].reshape(-1, place.shape[1], merged.shape[-1])


def chosen_stage(source: str, depths: Sequence[int], stage: int | None) -> int:
    """The stage that was asked for, or the one with most blocks; ValueError on one that is not there."""
    if stage is None:
        return max(range(len(depths)), key=lambda number: depths[number])
    if not 0 <= stage < len(depths):
        raise ValueError(f"{source}: stage must be 0 to {len(depths) - 1}, got {stage}")
    return stage
