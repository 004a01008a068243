"""timm's Swin transformers: the windows of one stage in the frame of the stage's whole grid."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from aft_lens.errors import InputError
from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.extraction.reader import AttentionReader, AttentionSink
from aft_lens.extraction.windows import Windows, chosen_stage


class TimmWindowReader(AttentionReader):
    """Reads the attention of one stage of a Swin transformer, 0 where a target does not see a source.

    A stage has a grid and a number of heads of its own, so one is read at a time; `stage` counts from 0, and the one
    with most blocks is read if it is left out; `source` then says which. Shifted windows that wrap around the grid keep
    timm's mask. Raises ValueError on another model, on a stage that it has not, and on a grid that is no multiple of
    the windows.
    """

    def __init__(
        self, model: nn.Module, source: str = "model", *, stage: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(model, SwinTransformer):
            raise InputError(f"{source}: looked for timm's SwinTransformer, found {type(model).__name__}")
        stages: list[Any] = list(model.layers)
        stage = chosen_stage(source, [len(one.blocks) for one in stages], stage)
        blocks: list[Any] = list(stages[stage].blocks)
        grid = tuple(blocks[0].input_resolution)
        self.windows = [Windows.of(grid, block.window_size, block.shift_size) for block in blocks]
        embed: Any = model.patch_embed
        super().__init__(
            f"{source},stage={stage}",
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
            return lambda _module, _inputs, output: sink(number, self.windows[number].whole(output))

        layers: list[Any] = self.layers
        with ExitStack() as stack:
            for number, layer in enumerate(layers):
                stack.callback(setattr, layer, "fused_attn", layer.fused_attn)
                layer.fused_attn = False
                stack.callback(layer.attn_drop.register_forward_hook(read(number)).remove)
            yield

    def values(self, layer: int, x: Tensor) -> Tensor:
        """The value third of the windows' joint projection, by head, in the order of the grid."""
        module: Any = self.layers[layer]
        value = self.windows[layer].merged(module.qkv(x).chunk(3, -1)[2])
        return value.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """The output projection, in windows again."""
        module: Any = self.layers[layer]
        return module.proj_drop(module.proj(self.windows[layer].cut(mixed)))

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the classifier reads, pooled over the last stage, and its logits."""
        model: Any = self.model
        found = model.forward_features(images)
        return model.forward_head(found, pre_logits=True), model.forward_head(found) if model.num_classes else None
