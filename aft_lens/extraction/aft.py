"""AFT-conv as an attention reader: its weights by head, target and source, written out."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.extraction.reader import AttentionReader, AttentionSink
from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.models import VisionModel
from aft_lens.ops import expand_bias


class AFTReader(AttentionReader):
    """Reads an AFT-conv as attention with h heads: softmax over sources of K_s + w_{s - t} (Eq. 6, Sec. 3.1).

    Where `outside` is "none" a source beyond the window has weight 0. The weights are T x T by head, which the model
    itself never makes. Raises ValueError on another mixer.
    """

    def __init__(
        self,
        model: VisionModel,
        source: str = "model",
        *,
        preprocessing: Preprocessing | None = None,
        data: str | None = None,
    ) -> None:
        layers = [block.get_submodule("mixer") for block in model.blocks]
        if not all(isinstance(layer, AFTConv) for layer in layers):
            raise ValueError(f"{source} must be an AFT-conv, it mixes with {model.config.mixer}")
        side, size = model.config.grid_size, model.config.img_size
        super().__init__(
            source,
            model,
            layers,
            grid=(side, side),
            prefix=0,
            num_heads=model.config.num_heads,
            image_size=(size, size),
            in_chans=model.config.in_chans,
            preprocessing=preprocessing,
            data=data,
        )
        self.window = model.config.window_size

    @contextmanager
    def exposed(self, sink: AttentionSink) -> Iterator[None]:
        """Read every layer's keys at `hook_key` and hand on the weights that follow from them and its bias."""

        def read(number: int) -> Callable[[nn.Module, Any, Tensor], None]:
            def hook(_module: nn.Module, _inputs: Any, key: Tensor) -> None:
                sink(number, (key.flatten(2).unsqueeze(2) + self.pairwise(number)).softmax(-1))

            return hook

        with ExitStack() as stack:
            for number, layer in enumerate(self.layers):
                stack.callback(layer.get_submodule("hook_key").register_forward_hook(read(number)).remove)
            yield

    def values(self, layer: int, x: Tensor) -> Tensor:
        """The layer's values, by head."""
        module = self._layer(layer)
        return module.value(x).unflatten(2, (module.num_heads, -1)).transpose(1, 2)

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """proj(sigmoid(query) * mixed), without the gate where the layer has none."""
        module = self._layer(layer)
        return module.proj(mixed if module.query is None else module.query(x).sigmoid() * mixed)

    def bias(self, layer: int) -> Float[Tensor, "h y x"]:
        """w of a layer on its window."""
        return self._layer(layer).position_bias.dense((self.window, self.window))

    def pairwise(self, layer: int) -> Float[Tensor, "h t s"]:
        """w of a layer for every target and source: 0 beyond the window, or -inf where nothing is read there."""
        return expand_bias(self.bias(layer), self.grid, outside=self._layer(layer).outside)

    def _layer(self, number: int) -> AFTConv:
        layer = self.layers[number]
        assert isinstance(layer, AFTConv)
        return layer
