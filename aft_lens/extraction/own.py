"""Our own ViT as an attention reader."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from aft_lens.extraction.hooks import unfused
from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.extraction.reader import AttentionReader, AttentionSink
from aft_lens.layers.mixers.attention import Attention
from aft_lens.models import VisionModel


class OwnReader(AttentionReader):
    """Reads `hook_attention` of a `VisionModel` whose mixer is softmax attention.

    `grid` is the patches (rows, columns) of the images that will come, as trained if left out; position embeddings
    are interpolated to another one. Raises ValueError on another mixer: an AFT has position biases
    (`aft-lens bias`), not attention weights.
    """

    def __init__(
        self,
        model: VisionModel,
        source: str = "model",
        *,
        grid: tuple[int, int] | None = None,
        preprocessing: Preprocessing | None = None,
        data: str | None = None,
    ) -> None:
        layers = [block.get_submodule("mixer") for block in model.blocks]
        if not all(isinstance(layer, Attention) for layer in layers):
            raise ValueError(
                f"{source} mixes with {model.config.mixer}, which has no attention weights; read it by "
                "aft_lens.bias_maps and key_maps (`aft-lens bias`, `aft-lens keys`), or give a ViT"
            )
        trained = (model.config.grid_size, model.config.grid_size)
        grid = grid or trained
        super().__init__(
            source,
            model,
            layers,
            grid=grid,
            prefix=model.config.prefix,
            num_heads=model.config.num_heads,
            image_size=(grid[0] * model.config.patch_size, grid[1] * model.config.patch_size),
            in_chans=model.config.in_chans,
            preprocessing=preprocessing,
            data=data,
            trained_grid=trained,
        )

    @contextmanager
    def exposed(self, sink: AttentionSink) -> Iterator[None]:
        """Unfuse every layer and read its weights at `hook_attention`."""

        def read(number: int) -> Callable[[nn.Module, object, Tensor], None]:
            return lambda _module, _inputs, output: sink(number, output)

        with ExitStack() as stack:
            stack.enter_context(unfused(self.model))
            for number, layer in enumerate(self.layers):
                handle = layer.get_submodule("hook_attention").register_forward_hook(read(number))
                stack.callback(handle.remove)
            yield

    def values(self, layer: int, x: Tensor) -> Tensor:
        """The last third of the layer's joint projection, by head."""
        b, t, d = x.shape
        return self._layer(layer).qkv(x)[..., 2 * d :].reshape(b, t, self.num_heads, -1).transpose(1, 2)

    def queries_keys(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first two thirds of the layer's joint projection, by head."""
        query, key, _ = self._layer(layer).qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return query * query.shape[-1] ** -0.5, key

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """proj(mixed)."""
        return self._layer(layer).proj(mixed)

    def _layer(self, number: int) -> Attention:
        layer = self.layers[number]
        assert isinstance(layer, Attention)
        return layer
