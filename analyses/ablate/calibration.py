"""What calibration images say of every head: all that replaces it is made of this, whatever image comes later."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor

from aft_lens.extraction import AttentionReader
from aft_lens.files import write_whole
from aft_lens.progress import progress as bar
from aft_lens.weights import read_tensors
from analyses.explain.position import HeadPositions, head_positions

KERNEL = 3
"""Side of the depth-wise kernel, in patches."""
BANK = 16
"""Calibration images whose outputs a resampled head gives."""
RIDGE = 1e-6
"""Of the kernels' least squares, as a fraction of the mean square of a channel's values."""


@dataclass(frozen=True)
class Calibration:
    """Every head over the calibration images; c are its channels, p the prefix tokens, t all tokens, prefix first."""

    positions: HeadPositions
    deviation: Float[Tensor, "layer head"]
    """Standard deviation over images of a patch's attention to a patch (prefix tokens left out and renormalised), mean
    over the pairs, times the number of patches: 0 for attention that no image changes."""
    mean: Float[Tensor, "layer head p_and_1 c"]
    """Mean of what the head reads over images: for each prefix token, then over all patches."""
    bank: Float[Tensor, "layer image head t c"]
    """What the head reads on the first images."""
    kernel: Float[Tensor, "layer head c tap"]
    """Least-squares weights of a 3 x 3 depth-wise kernel with zeros beyond the border, row by row, and a constant: of
    what patches read less the mean share of the prefix tokens' values."""

    def save(self, path: Path) -> None:
        """Write all of it as one safetensors file."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        tensors |= {f"positions.{name}": one for name, one in self.positions.tensors().items()}
        write_whole(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """What `save` wrote; InputError on a damaged file."""
        tensors = read_tensors(path)
        parts = {name.partition(".")[2]: one for name, one in tensors.items() if name.startswith("positions.")}
        return cls(HeadPositions.of_tensors(parts), **{field.name: tensors[field.name] for field in fields(cls)[1:]})


@torch.no_grad()
def calibrate(
    reader: AttentionReader, batches: Iterable[tuple[Tensor, Tensor] | list[Tensor]], *, progress: bool = False
) -> Calibration:
    """Two passes over batches of images; raises as `head_positions` does.

    The second fits kernels to what the heads read, so it needs what the first found they give to prefix tokens.
    """
    batches = list(batches)
    positions = head_positions(reader, batches, progress=progress)
    p, (rows, columns) = reader.prefix, reader.grid
    n = rows * columns
    sums: dict[int, _Sums] = {}
    device = next(reader.model.parameters()).device

    def gather(layer: int, x: Tensor, attention: Tensor) -> None:
        values = reader.values(layer, x).float()
        if layer not in sums:
            sums[layer] = _Sums(values.shape[1], p, n, values.shape[3], device)
        sums[layer].add(attention.float(), values, positions.columns[layer].to(values), (rows, columns))

    images = 0
    for batch in bar(batches, "outputs of heads", shown=progress):
        images += len(batch[0])
        with reader.remixed(gather):
            reader.logits(batch[0].to(device))
    found = [sums[layer] for layer in range(len(reader.layers))]
    return Calibration(
        positions,
        torch.stack([one.deviation(images) for one in found]),
        torch.stack([one.mean / images for one in found]).float().cpu(),
        torch.stack([torch.cat(one.bank) for one in found]).cpu(),
        torch.stack([one.kernel(images) for one in found]).cpu(),
    )


class _Sums:
    """One layer's sums over images."""

    def __init__(self, heads: int, p: int, n: int, c: int, device: torch.device) -> None:
        taps = KERNEL**2 + 1
        self.p, self.n = p, n
        self.first, self.second = (torch.zeros(heads, n, n, device=device) for _ in range(2))
        self.mean = torch.zeros(heads, p + 1, c, dtype=torch.float64, device=device)
        self.gram = torch.zeros(heads, c, taps, taps, dtype=torch.float64, device=device)
        self.right = torch.zeros(heads, c, taps, dtype=torch.float64, device=device)
        self.bank: list[Tensor] = []

    def add(self, attention: Tensor, values: Tensor, columns: Tensor, grid: tuple[int, int]) -> None:
        """A batch: weights `b h t s`, values `b h s c`, mean shares of the prefix tokens `h p`."""
        patches = attention[:, :, self.p :, self.p :]
        patches = patches / patches.sum(-1, keepdim=True)
        self.first += patches.sum(0)
        self.second += patches.square().sum(0)
        read = attention @ values
        self.mean[:, : self.p] += read[:, :, : self.p].sum(0)
        self.mean[:, self.p :] += read[:, :, self.p :].sum(0).mean(1, keepdim=True)
        room = BANK - sum(map(len, self.bank))
        if room > 0:
            self.bank.append(read[:room].clone())
        own = read[:, :, self.p :] - torch.einsum("hp,bhpc->bhc", columns, values[:, :, : self.p])[:, :, None]
        taps = neighbours(values[:, :, self.p :], grid)
        taps = torch.cat([taps, torch.ones_like(taps[..., :1])], -1).permute(1, 3, 4, 0, 2).flatten(3)  # h c tap (b n)
        self.gram += taps @ taps.mT
        self.right += (taps @ own.permute(1, 3, 0, 2).flatten(2)[..., None])[..., 0]

    def deviation(self, images: int) -> Tensor:
        """By head; see `Calibration`."""
        spread = (self.second / images - (self.first / images).square()).clamp(min=0).sqrt()
        return self.n * spread.mean((1, 2), dtype=torch.float64).cpu()

    def kernel(self, images: int) -> Tensor:
        """By head and channel; see `Calibration`."""
        square = self.gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        ridge = RIDGE * square * torch.eye(self.gram.shape[-1], dtype=torch.float64, device=square.device)
        return torch.linalg.solve(self.gram + ridge, self.right).float()


def neighbours(values: Float[Tensor, "b h s c"], grid: tuple[int, int]) -> Float[Tensor, "b h s c tap"]:
    """Each patch's 3 x 3 neighbourhood, row by row, with zeros beyond the border."""
    b, h, s, c = values.shape
    image = values.transpose(2, 3).reshape(b * h, c, *grid)
    return F.unfold(image, KERNEL, padding=KERNEL // 2).reshape(b, h, c, KERNEL**2, s).permute(0, 1, 4, 2, 3)
