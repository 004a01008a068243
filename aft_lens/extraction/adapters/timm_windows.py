"""timm's Swin transformers: the windows of one stage in the frame of the stage's whole grid."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from timm.models.swin_transformer import SwinTransformer, window_partition
from torch import Tensor, nn

from aft_lens.errors import InputError
from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.extraction.reader import AttentionReader, AttentionSink


class WindowReader(AttentionReader):
    """Reads the attention of one stage of a Swin transformer, 0 where a target does not see a source.

    A stage has a grid and a number of heads of its own, so one is read at a time; `stage` counts from 0, and the one
    with most blocks is read if it is left out. Shifted windows that wrap around the grid keep timm's mask. Raises
    InputError on another model, on a stage that it has not, and on a grid that is no multiple of the windows.
    """

    def __init__(
        self, model: nn.Module, source: str = "model", *, stage: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(model, SwinTransformer):
            raise InputError(f"{source}: looked for timm's SwinTransformer, found {type(model).__name__}")
        stages: list[Any] = list(model.layers)
        if stage is None:
            stage = max(range(len(stages)), key=lambda number: len(stages[number].blocks))
        if not 0 <= stage < len(stages):
            raise InputError(f"{source}: stage must be 0 to {len(stages) - 1}, got {stage}")
        self.stage = stage
        blocks: list[Any] = list(stages[stage].blocks)
        grid = tuple(blocks[0].input_resolution)
        for block in blocks:
            if any(side % window for side, window in zip(grid, block.window_size)):
                raise InputError(
                    f"{source}: windows of {block.window_size} do not fill the {grid[0]} x {grid[1]} grid of stage "
                    f"{stage}; build the model with an img_size that they fill"
                )
        self.places = [_places(block, grid) for block in blocks]
        embed: Any = model.patch_embed
        super().__init__(
            source,
            model,
            [block.attn for block in blocks],
            grid=grid,
            prefix=0,
            num_heads=blocks[0].attn.num_heads,
            image_size=tuple(embed.img_size),
            in_chans=embed.proj.in_channels,
            preprocessing=preprocessing,
        )

    @contextmanager
    def exposed(self, sink: AttentionSink) -> Iterator[None]:
        """Unfuse every layer, and write the weights of its windows out over the grid."""

        def read(number: int) -> Callable[..., None]:
            return lambda _module, _inputs, output: sink(number, self.whole(number, output))

        layers: list[Any] = self.layers
        with ExitStack() as stack:
            for number, layer in enumerate(layers):
                stack.callback(setattr, layer, "fused_attn", layer.fused_attn)
                layer.fused_attn = False
                stack.callback(layer.attn_drop.register_forward_hook(read(number)).remove)
            yield

    def whole(self, layer: int, windows: Float[Tensor, "bw h a a2"]) -> Float[Tensor, "b h t s"]:
        """Weights of windows as weights over the whole grid."""
        place = self.places[layer].to(windows.device)
        count, (_, heads, area, _) = len(place), windows.shape
        t = self.grid[0] * self.grid[1]
        found = windows.new_zeros(len(windows) // count, heads, t, t)
        found[:, :, place[:, :, None], place[:, None, :]] = windows.reshape(-1, count, heads, area, area).transpose(
            1, 2
        )
        return found

    def values(self, layer: int, x: Tensor) -> Tensor:
        """The value third of the windows' joint projection, by head, in the order of the grid."""
        module: Any = self.layers[layer]
        place = self.places[layer].to(x.device)
        heads = (
            module.qkv(x)
            .chunk(3, -1)[2]
            .reshape(-1, place.numel(), self.num_heads, module.proj.in_features // self.num_heads)
        )
        found = torch.empty_like(heads)
        found[:, place.flatten()] = heads
        return found.transpose(1, 2)

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """The output projection, in windows again."""
        module: Any = self.layers[layer]
        place = self.places[layer].to(x.device)
        return module.proj_drop(module.proj(mixed[:, place.flatten()].reshape(*x.shape[:2], -1)))

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the classifier reads, pooled over the last stage, and its logits."""
        model: Any = self.model
        found = model.forward_features(images)
        return model.forward_head(found, pre_logits=True), model.forward_head(found) if model.num_classes else None


def _places(block: Any, grid: tuple[int, int]) -> Int[Tensor, "window a"]:
    """The patches of each window, in raster order of the grid: shifted and cut as the block does it."""
    numbers = torch.arange(grid[0] * grid[1]).reshape(1, *grid, 1)
    shifted = numbers.roll((-block.shift_size[0], -block.shift_size[1]), (1, 2))
    return window_partition(shifted, block.window_size).flatten(1)
