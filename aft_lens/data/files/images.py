"""Images of a batch of decoded pictures, by kernels: on a GPU, or in Triton's interpreter."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from aft_lens.data.augment.randaugment import fill_colour
from aft_lens.data.augment.view import Size
from aft_lens.data.files.arrays import NUMBERS, VIEW, DrawArrays
from aft_lens.later import later

if TYPE_CHECKING:
    from aft_lens.data.files import kernels
else:
    kernels = later("aft_lens.data.files.kernels")

BLOCK = 512
"""Pixels of a program."""


class Maker:
    """Makes images of one size and normalisation on a device."""

    def __init__(
        self, size: Size, mean: Sequence[float], std: Sequence[float], interpolation: str, device: torch.device
    ) -> None:
        self.size, self.interpolation, self.device = size, interpolation, device
        self.mean, self.std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (mean, std))
        self.fill = torch.tensor(fill_colour(mean), dtype=torch.uint8, device=device)

    def __call__(self, pictures: Tensor, places: np.ndarray, draws: DrawArrays) -> Float[Tensor, "b 3 y x"]:
        """Normalised images of pictures in one buffer of bytes; `places` says where each begins."""
        count, (rows, columns) = len(places), self.size
        images = torch.empty(count, 3, rows, columns, dtype=torch.uint8, device=self.device)
        grid, block = (-(-rows * columns // BLOCK), count), BLOCK if rows * columns > 64 else 64
        grid = (-(-rows * columns // block), count)
        kernels.view_kernel[grid](
            pictures, self._here(places), self._here(draws.views), images, rows, columns,
            CUBIC=self.interpolation == "bicubic", VIEW=VIEW, BLOCK=block,
        )  # fmt: skip
        kinds, numbers, tables = map(self._here, (draws.kinds, draws.numbers, draws.tables))
        for layer, members in enumerate(draws.members):
            if len(members):
                kernels.table_kernel[(len(members), 3)](
                    images, self._here(members), self._here(draws.statistics[layer]),
                    self._here(draws.numbers[layer, members, 0]), tables[layer], rows * columns, BLOCK=1024,
                    enable_fp_fusion=False,
                )  # fmt: skip
            changed = torch.empty_like(images)
            kernels.change_kernel[grid](
                images, changed, kinds[layer], numbers[layer], tables[layer], self.fill, rows, columns,
                NUMBERS=NUMBERS, BLOCK=block, enable_fp_fusion=False,
            )  # fmt: skip
            images = changed
        out = torch.empty(images.shape, device=self.device)
        kernels.normal_kernel[grid](
            images, out, self._here(draws.boxes), self._here(draws.seeds), self.mean, self.std, rows, columns,
            BLOCK=block,
        )  # fmt: skip
        return out

    def _here(self, values: np.ndarray) -> Tensor:
        """An array on the device."""
        return torch.from_numpy(values).to(self.device)
