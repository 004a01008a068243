"""timm's windowed ViTs, Swin, SwinV2 and MaxViT: the windows of one stage in the frame of the stage's whole grid."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from timm.models.maxxvit import AttentionCl, MaxxVit, MaxxVitBlock
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn

from aft_lens.errors import InputError
from aft_lens.extraction.adapters.timm_attention import unfused, value
from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.extraction.reader import AttentionReader, AttentionSink
from aft_lens.extraction.windows import Windows, chosen_stage

WINDOWED = (SwinTransformer, SwinTransformerV2, MaxxVit)
"""timm's models that are read a stage at a time."""


class TimmWindowReader(AttentionReader):
    """Reads the attention of one stage of a Swin, SwinV2 or MaxViT, 0 where a target does not see a source.

    A stage has a grid and a number of heads of its own, so one is read at a time; `stage` counts from 0, and the one
    with most blocks is read if it is left out; `source` then says which. Shifted windows that wrap around the grid keep
    timm's mask. A block of MaxViT has two layers: its windows, and its grid of sources that lie far apart. Raises
    ValueError on another model, on a stage that it has not, on one without such attention, and on a grid that is no
    multiple of the windows.
    """

    def __init__(
        self, model: nn.Module, source: str = "model", *, stage: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(model, WINDOWED):
            kinds = ", ".join(kind.__name__ for kind in WINDOWED)
            raise InputError(f"{source}: looked for one of timm's {kinds}, found {type(model).__name__}")
        whole: Any = model
        stages: list[Any] = list(whole.stages if isinstance(model, MaxxVit) else whole.layers)
        stage = chosen_stage(source, [len(one.blocks) for one in stages], stage)
        blocks: list[Any] = list(stages[stage].blocks)
        if isinstance(model, MaxxVit):
            size = tuple(whole.img_size)
            shrunk = 2 ** (stage + 2)  # the stem halves the image, and every stage halves what it gets
            grid = size[0] // shrunk, size[1] // shrunk
            layers, self.windows = _partitioned(source, blocks, grid)
        else:
            size, grid = tuple(whole.patch_embed.img_size), tuple(blocks[0].input_resolution)
            layers = [block.attn for block in blocks]
            self.windows = [Windows.of(grid, block.window_size, block.shift_size) for block in blocks]
        super().__init__(
            f"{source},stage={stage}",
            model,
            layers,
            grid=grid,
            prefix=0,
            num_heads=layers[0].num_heads,
            image_size=size,
            in_chans=next(module for module in model.modules() if isinstance(module, nn.Conv2d)).in_channels,
            preprocessing=preprocessing,
        )

    @contextmanager
    def exposed(self, sink: AttentionSink) -> Iterator[None]:
        """Unfuse every layer that is fused, and write the weights of its windows out over the grid."""

        with unfused(self.layers, lambda number, weights: sink(number, self.windows[number].whole(weights))):
            yield

    def values(self, layer: int, x: Tensor) -> Tensor:
        """The values of the windows' patches, by head, in the order of the grid."""
        return value(self.layers[layer], self.windows[layer].merged(x.flatten(1, -2)))

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """The output projection, in windows again."""
        module: Any = self.layers[layer]
        return module.proj_drop(module.proj(self.windows[layer].cut(mixed))).view_as(x)

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the classifier reads, pooled over the last stage, and its logits."""
        model: Any = self.model
        found = model.forward_features(images)
        return model.forward_head(found, pre_logits=True), model.forward_head(found) if model.num_classes else None


def _partitioned(source: str, blocks: list[Any], grid: tuple[int, int]) -> tuple[list[Any], list[Windows]]:
    """The attention modules of MaxViT's blocks and where their windows lie, windows and grid in turn."""
    layers, windows = [], []
    for block in blocks:
        parts: list[Any] = [getattr(block, name, None) for name in ("attn_block", "attn_grid")]
        kinds = [type(getattr(part, "attn", None)) for part in parts]
        if not isinstance(block, MaxxVitBlock) or kinds != [AttentionCl, AttentionCl]:
            raise InputError(
                f"{source}: looked for windows and a grid of timm's AttentionCl in each block of the stage, found "
                f"{type(block).__name__} with {', '.join(kind.__name__ for kind in kinds)}; give another stage, or a "
                "MaxViT whose attention is channels-last, as timm:maxvit_nano_rw_256"
            )
        layers += [part.attn for part in parts]
        cut = tuple(parts[0].partition_size)
        windows += [Windows.of(grid, cut, (0, 0)), Windows.spread(grid, tuple(parts[1].partition_size))]
    return layers, windows
