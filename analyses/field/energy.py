"""Effective receptive fields from the image to a token, through every residual and MLP, by gradients.

The field of a target t at a patch s is the squared Frobenius norm of the Jacobian of t's token by the pixels of s, as a
share of that of all patches (energy; after Luo et al. 2016). For v drawn from N(0, I), the mean of |d (v . token)/ds|^2
over draws is that norm.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.extraction import AttentionReader, as_reader, entering
from aft_lens.mode import evaluating
from aft_lens.models import VisionModel
from aft_lens.progress import progress as bar

DRAWS = 4
"""Directions that each token's Jacobian is asked in."""


def layout(model: nn.Module | AttentionReader) -> tuple[nn.Module, tuple[int, int], int, int]:
    """The module, its grid, the tokens before the patches, and its depth; ValueError on what cannot be read."""
    if isinstance(model, VisionModel):
        side = model.config.grid_size
        return model, (side, side), model.config.prefix, model.config.depth
    reader = as_reader(model)
    return reader.model, reader.grid, reader.prefix, len(reader.layers)


@contextmanager
def leaving(model: nn.Module | AttentionReader, tokens: dict[int, Tensor]) -> Iterator[None]:
    """Inside the block, what leaves each block, `b t d`, is kept by the block's number."""
    if not isinstance(model, VisionModel):
        with entering(as_reader(model), lambda number, hidden: tokens.__setitem__(number - 1, hidden)):
            yield
        return
    handles = [
        block.register_forward_hook(lambda _module, _inputs, output, i=i: tokens.__setitem__(i, output))
        for i, block in enumerate(model.blocks)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def receptive_fields(
    model: nn.Module | AttentionReader, batches: Iterable[Tensor | Sequence[Any]], *,
    target: tuple[int, int] | None = None, draws: int = DRAWS, seed: int = 0, progress: bool = False,
) -> tuple[Float[np.ndarray, "layer image rows columns"], tuple[int, int]]:  # fmt: skip
    """The field of one target after every block, by image: shares of the energy over patches, which sum to 1.

    The model is one of ours (AFT, ViT, compact) or a ViT of another library; `batches` are images `b c y x`, or tuples
    that start with them. `target` is (row, column), the middle of the grid if left out; it is returned too. Raises
    ValueError on a model that cannot be read, without a list of blocks, and on a target outside its grid.
    """
    model = model if isinstance(model, VisionModel) else as_reader(model)
    module, grid, prefix, depth = layout(model)
    rows, columns = grid
    target = (rows // 2, columns // 2) if target is None else target
    if not (0 <= target[0] < rows and 0 <= target[1] < columns):
        raise ValueError(f"target must lie on the grid of {rows} x {columns} patches, got {target}")
    place = prefix + target[0] * columns + target[1]
    device = next(module.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    found: list[Tensor] = []
    with evaluating(module):
        for batch in bar(list(batches), "receptive fields", shown=progress):
            images = (batch if isinstance(batch, Tensor) else batch[0]).to(device).requires_grad_()
            tokens: dict[int, Tensor] = {}
            with torch.enable_grad(), leaving(model, tokens):
                model.logits(images) if isinstance(model, AttentionReader) else model(images)
            if not set(range(depth)) <= set(tokens):
                raise ValueError("model must have a list of blocks, one around each mixer, to read what leaves them")
            energy = torch.zeros(depth, len(images), rows, columns, dtype=torch.float64)
            for layer in range(depth):
                token = tokens[layer].flatten(1, -2)[:, place]
                for draw in range(draws):
                    direction = torch.randn(token.shape, generator=generator).to(token)
                    last = layer == depth - 1 and draw == draws - 1
                    (gradient,) = torch.autograd.grad((token * direction).sum(), images, retain_graph=not last)
                    patches = gradient.double().square().sum(1).unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
                    energy[layer] += patches.sum((2, 4)).cpu()
            found.append(energy / energy.sum((2, 3), keepdim=True))
    if not found:
        raise ValueError("batches must hold at least one image, got none")
    return torch.cat(found, 1).numpy(), target
