"""timm's class attention (CaiT): what the class token alone reads, after the patches have mixed by other means."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from timm.models.cait import Cait, ClassAttn
from torch import Tensor, nn

from aft_lens.errors import InputError
from aft_lens.extraction.adapters.timm_attention import unfused
from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.extraction.reader import AttentionReader, AttentionSink


class TimmClassReader(AttentionReader):
    """Reads the class attention of a CaiT: the class token is its only target, and patches are left as they are.

    As weights over all tokens a patch reads itself alone. The talking heads of CaiT's other blocks, which mix weights
    of several heads, are not read. Raises InputError on another model.
    """

    patches_read = False

    def __init__(self, model: nn.Module, source: str = "model", *, preprocessing: Preprocessing | None = None) -> None:
        layers = [module for module in model.modules() if isinstance(module, ClassAttn)]
        if not isinstance(model, Cait) or not layers:
            raise InputError(f"{source}: looked for timm's Cait with class attention, found {type(model).__name__}")
        embed: Any = model.patch_embed
        super().__init__(
            source,
            model,
            layers,
            grid=tuple(embed.grid_size),
            prefix=1,
            num_heads=layers[0].num_heads,
            image_size=tuple(embed.img_size),
            in_chans=embed.proj.in_channels,
            preprocessing=preprocessing,
        )

    @contextmanager
    def exposed(self, sink: AttentionSink) -> Iterator[None]:
        """Unfuse every layer; its row of weights becomes the class token's, and a patch's row is its own."""

        def read(number: int, row: Tensor) -> None:
            whole = torch.eye(row.shape[-1], dtype=row.dtype, device=row.device).repeat(*row.shape[:2], 1, 1)
            whole[:, :, :1] = row
            sink(number, whole)

        with unfused(self.layers, read):
            yield

    def values(self, layer: int, x: Tensor) -> Tensor:
        """v(x) by head."""
        module: Any = self.layers[layer]
        return module.v(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """proj of what the class token reads: the layer has no other output."""
        module: Any = self.layers[layer]
        return module.proj_drop(module.proj(mixed[:, :1]))
