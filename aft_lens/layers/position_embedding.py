"""Learned position embeddings at a grid other than the one they were trained on."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def resample_positions(
    embedding: Float[Tensor, "1 n d"], before: Sequence[int], after: Sequence[int], prefix: int = 1
) -> Float[Tensor, "1 m d"]:
    """Interpolate a ViT's position embeddings from one grid to another.

    Bicubic with antialiasing in float32, as timm does; the first `prefix` embeddings (class and other tokens) have no
    place on the grid and stay. `before` and `after` are (rows, columns), n = prefix + rows x columns; the embedding
    itself comes back where the grids agree. Raises ValueError if the embedding does not fit `before`.
    """
    if embedding.shape[1] != prefix + before[0] * before[1]:
        raise ValueError(
            f"embedding must hold {prefix} + {before[0]} x {before[1]} positions, got {embedding.shape[1]}"
        )
    if tuple(before) == tuple(after):
        return embedding
    plane = embedding[:, prefix:].transpose(1, 2).unflatten(2, tuple(before)).float()
    plane = F.interpolate(plane, tuple(after), mode="bicubic", antialias=True)
    return torch.cat([embedding[:, :prefix], plane.flatten(2).transpose(1, 2).to(embedding)], dim=1)
