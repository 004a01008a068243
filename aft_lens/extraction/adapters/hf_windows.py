"""transformers' Swin transformers: the windows of one stage in the frame of the stage's whole grid."""

from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from aft_lens.extraction.adapters.hf_eager import eager
from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.extraction.reader import AttentionReader, AttentionSink
from aft_lens.extraction.windows import Windows, chosen_stage


class HFWindowReader(AttentionReader):
    """Reads the attention of one stage of a Swin transformer, 0 where a target does not see a source.

    `stage` counts from 0; the one with most blocks is read if it is left out, and `source` says which. Raises
    ValueError on a stage that there is not, and on a grid that is no multiple of the windows.
    """

    def __init__(
        self, model: nn.Module, source: str = "model", *, stage: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:  # fmt: skip
        config: Any = model.config
        base: Any = model.base_model
        stage = chosen_stage(source, config.depths, stage)
        blocks: list[Any] = list(base.encoder.layers[stage].blocks)
        rows, columns = base.embeddings.patch_grid
        grid = rows // 2**stage, columns // 2**stage
        side = min(config.window_size, *grid)  # transformers makes windows smaller where the grid is
        shifts = [0 if min(grid) <= config.window_size else block.shift_size for block in blocks]
        self.windows = [Windows.of(grid, (side, side), (shift, shift)) for shift in shifts]
        size = config.image_size
        super().__init__(
            f"{source},stage={stage}",
            model,
            [block.attention for block in blocks],
            grid=grid,
            prefix=0,
            num_heads=config.num_heads[stage],
            image_size=(size, size) if isinstance(size, int) else tuple(size),
            in_chans=config.num_channels,
            preprocessing=preprocessing,
        )

    def exposed(self, sink: AttentionSink) -> AbstractContextManager[None]:
        """Run attention in eager form, and write the weights of its windows out over the grid."""
        return eager(self.model, self.layers, lambda layer, weights: sink(layer, self.windows[layer].whole(weights)))

    def values(self, layer: int, x: Tensor) -> Tensor:
        """v_proj(x) by head, in the order of the grid."""
        module: Any = self.layers[layer]
        return self.windows[layer].merged(module.v_proj(x)).unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """o_proj(mixed), in windows again."""
        module: Any = self.layers[layer]
        return module.o_proj(self.windows[layer].cut(mixed))

    def logits(self, images: Tensor) -> Tensor:
        """The class logits, or what a model without a classifier pools."""
        output = self.model(pixel_values=images)
        return output.logits if hasattr(output, "logits") else output.pooler_output
