"""torchvision's Swin transformers: the windows of one stage in the frame of the stage's whole grid."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import swin_transformer as swin

from aft_lens.errors import InputError
from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.extraction.reader import AttentionReader, AttentionSink
from aft_lens.extraction.windows import Windows, chosen_stage

OUTSIDE = -100.0
"""What torchvision adds to the logits of pairs that a shift made neighbours across the border."""
COLDEST = math.log(100.0)
"""Of the logits' scale in version 2, as its logarithm."""


class TorchvisionWindowReader(AttentionReader):
    """Reads the attention of one stage of torchvision's Swin (1 or 2), 0 where a target does not see a source.

    torchvision computes it in a function without a place to look in, so weights are computed again from each layer's
    input and parameters; `verify` holds them to its outputs. `stage` counts from 0; the one with most blocks is read if
    it is left out, and `source` says which. `side` is that of the images, which the model does not know. Raises
    ValueError on another model, on a stage that there is not, and on a grid that is no multiple of the windows.
    """

    def __init__(
        self, model: nn.Module, source: str = "model", *, side: int, stage: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(model, swin.SwinTransformer):
            raise InputError(f"{source}: looked for torchvision's SwinTransformer, found {type(model).__name__}")
        parts: list[Any] = list(model.features)
        stages = parts[1::2]
        stage = chosen_stage(source, [len(one) for one in stages], stage)
        layers: list[Any] = [block.attn for block in stages[stage]]
        embed = parts[0][0]
        shrunk = embed.stride[0] * 2**stage
        grid = (side // shrunk, side // shrunk)
        self._masks: list[Tensor | None] = []
        self.windows = []
        for layer in layers:
            window: list[int] = list(layer.window_size)
            moves = zip(window, grid, layer.shift_size)
            shift = [0 if part >= side_of else step for part, side_of, step in moves]
            self.windows.append(Windows.of(grid, window, shift))
            self._masks.append(_mask(grid, window, shift) if any(shift) else None)
        super().__init__(
            f"{source},stage={stage}",
            model,
            layers,
            grid=grid,
            prefix=0,
            num_heads=layers[0].num_heads,
            image_size=(side, side),
            in_chans=embed.in_channels,
            preprocessing=preprocessing,
        )

    @contextmanager
    def exposed(self, sink: AttentionSink) -> Iterator[None]:
        """Compute each layer's weights from its input, and write those of its windows out over the grid."""

        def read(number: int) -> Callable[..., None]:
            return lambda _module, inputs, _output: sink(number, self.weights(number, inputs[0]))

        with ExitStack() as stack:
            for number, layer in enumerate(self.layers):
                stack.callback(layer.register_forward_hook(read(number), prepend=True).remove)
            yield

    def weights(self, layer: int, x: Float[Tensor, "b y x d"]) -> Float[Tensor, "b h t s"]:
        """Attention of a layer over the whole grid, as torchvision computes it."""
        module: Any = self.layers[layer]
        windows, mask = self.windows[layer], self._masks[layer]
        cut = windows.cut(x.flatten(1, 2))
        scale, bias = getattr(module, "logit_scale", None), module.qkv.bias
        if scale is not None and bias is not None:  # version 2 has no bias of keys
            query, _, value = bias.chunk(3)
            bias = torch.cat([query, torch.zeros_like(query), value])
        joint = F.linear(cut, module.qkv.weight, bias).unflatten(2, (3, self.num_heads, -1))
        query, key, _ = joint.permute(2, 0, 3, 1, 4)
        if scale is None:
            logits = query * query.shape[-1] ** -0.5 @ key.mT
        else:
            logits = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT * scale.clamp(max=COLDEST).exp()
        logits = logits + module.get_relative_position_bias()
        if mask is not None:
            logits = (logits.unflatten(0, (-1, len(mask))) + mask[:, None].to(logits)).flatten(0, 1)
        return windows.whole(logits.softmax(-1))

    def values(self, layer: int, x: Tensor) -> Tensor:
        """The value third of the layer's joint projection, by head."""
        module: Any = self.layers[layer]
        bias = None if module.qkv.bias is None else module.qkv.bias.chunk(3)[2]
        found = F.linear(x.flatten(1, 2), module.qkv.weight.chunk(3)[2], bias)
        return found.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """proj(mixed), as rows and columns again."""
        module: Any = self.layers[layer]
        return module.proj(mixed).view_as(x)


def _mask(grid: Sequence[int], window: Sequence[int], shift: Sequence[int]) -> Float[Tensor, "w a a2"]:
    """What is added to the logits of a window's pairs of a grid that is shifted: `OUTSIDE` across the border."""
    bands = []
    for side, part, step in zip(grid, window, shift):
        band = torch.zeros(side)
        if step:
            band[-part:], band[-step:] = 1, 2
        bands.append(band)
    region = (3 * bands[0][:, None] + bands[1]).flatten()[Windows.of(grid, window, (0, 0)).places]
    return OUTSIDE * (region[:, None] != region[:, :, None]).float()
