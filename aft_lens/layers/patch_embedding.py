"""Patches to tokens as one matrix product."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class PatchEmbedding(nn.Conv2d):
    """A convolution whose kernel is its stride, computed as the matrix product of patches and kernel that it is.

    y[b, :, i, j] = W x[b, :, ip : ip + p, jp : jp + p] + bias, with W the kernel flattened to `d (c p p)`. Parameters
    have Conv2d's names and shapes. cuDNN has no fast convolution for an image's few channels; a matrix product needs
    none.
    """

    def __init__(self, in_channels: int, out_channels: int, patch_size: int) -> None:
        super().__init__(in_channels, out_channels, patch_size, patch_size)

    def forward(self, image: Float[Tensor, "b c y x"]) -> Float[Tensor, "b d rows columns"]:
        """Tokens of an image of any size that is a multiple of the patch; in memory they run `b rows columns d`.

        On the CPU the product runs as a convolution of kernel 1 over a row of tokens, which goes to oneDNN: F.linear
        took twice as long on an AMD EPYC with 768 numbers a patch. Compiled or exported on the CPU it stays the plain
        convolution, in the memory order that the compiler plans. Raises ValueError for other channels or sides.
        """
        b, c, height, width = image.shape
        p = self.kernel_size[0]
        if c != self.in_channels or height % p or width % p:
            raise ValueError(
                f"image must have {self.in_channels} channels and sides that are multiples of the patch {p}, "
                f"got {c} x {height} x {width}; convert, crop or pad it"
            )
        if image.is_cpu and torch.compiler.is_compiling():
            return super().forward(image)
        rows, columns = height // p, width // p
        patches = image.reshape(b, c, rows, p, columns, p).permute(0, 2, 4, 1, 3, 5)
        patches = patches.to(_product_dtype(image), memory_format=torch.contiguous_format)  # cast in the same pass
        patches = patches.reshape(b, rows * columns, c * p * p)
        kernel = self.weight.flatten(1)
        if image.is_cpu and p > 1:  # without a patch to gather, channels may not be last in memory
            row = patches.transpose(1, 2).unsqueeze(2)
            tokens = F.conv2d(row, kernel[:, :, None, None], self.bias).squeeze(2)
        else:
            tokens = F.linear(patches, kernel, self.bias).transpose(1, 2)
        return tokens.unflatten(2, (rows, columns))


def _product_dtype(image: Tensor) -> torch.dtype:
    """What autocast will compute a matrix product of the image in; float64 it leaves alone."""
    device = image.device.type
    if image.dtype == torch.float32 and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return image.dtype
