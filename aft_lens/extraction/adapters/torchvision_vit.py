"""torchvision's ViTs: vit_b_16, vit_b_32, vit_l_16, vit_l_32, vit_h_14; a stage of swin_* and swin_v2_*."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import get_model, get_model_builder, get_model_weights, list_models
from torchvision.models import swin_transformer as swin
from torchvision.models import vision_transformer as vit

from aft_lens.errors import InputError
from aft_lens.extraction.adapters.torchvision_windows import TorchvisionWindowReader
from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.extraction.reader import AttentionReader, AttentionSink
from aft_lens.extraction.request import Request
from aft_lens.weights import read_tensors

HEAD, POSITIONS = "heads.head", "encoder.pos_embedding"
"""The classifier, and the position embeddings, of torchvision's ViTs."""
NAMES = [name for name in list_models() if get_model_builder(name).__module__ == vit.__name__]
WINDOWED = [name for name in list_models() if get_model_builder(name).__module__ == swin.__name__]
SIDES = {1: 224, 2: 256}
"""Of the images that Swin transformers of either version are made for, which a model does not say itself."""


class TorchvisionReader(AttentionReader):
    """Reads the `nn.MultiheadAttention` of torchvision's `VisionTransformer`, by head although it merges them.

    Raises ValueError on a model of another class.
    """

    def __init__(
        self,
        model: nn.Module,
        source: str = "model",
        *,
        preprocessing: Preprocessing | None = None,
        trained_grid: tuple[int, int] | None = None,
    ) -> None:
        if not isinstance(model, vit.VisionTransformer):
            raise ValueError(
                f"{source}: looked for torchvision's VisionTransformer, found {type(model).__name__}; give one of: "
                + ", ".join(f"torchvision:{name}" for name in (*NAMES, *WINDOWED))
            )
        layers = [block.get_submodule("self_attention") for block in model.encoder.layers]
        side = model.image_size // model.patch_size
        super().__init__(
            source,
            model,
            layers,
            grid=(side, side),
            prefix=1,
            num_heads=next(iter(model.encoder.layers)).num_heads,
            image_size=(model.image_size, model.image_size),
            preprocessing=preprocessing,
            trained_grid=trained_grid,
        )

    @contextmanager
    def exposed(self, sink: AttentionSink) -> Iterator[None]:
        """Ask every layer for its weights by head, which also keeps it from its fused forms."""

        def ask(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**kwargs, "need_weights": True, "average_attn_weights": False}

        def read(number: int) -> Callable[..., None]:
            return lambda _module, _args, output: sink(number, output[1])

        with ExitStack() as stack:
            for number, layer in enumerate(self.layers):
                stack.callback(layer.register_forward_pre_hook(ask, with_kwargs=True).remove)
                # Before other hooks of the layer: `edited` looks for the weights in its own.
                stack.callback(layer.register_forward_hook(read(number), prepend=True).remove)
            yield

    def values(self, layer: int, x: Tensor) -> Tensor:
        """The value third of the layer's joint projection, by head."""
        module = self._layer(layer)
        assert module.in_proj_weight is not None
        weight = module.in_proj_weight.chunk(3)[2]
        bias = None if module.in_proj_bias is None else module.in_proj_bias.chunk(3)[2]
        return F.linear(x, weight, bias).unflatten(2, (module.num_heads, -1)).transpose(1, 2)

    def queries_keys(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first two thirds of the layer's joint projection, by head."""
        module = self._layer(layer)
        assert module.in_proj_weight is not None
        query, key, _ = (
            F.linear(x, module.in_proj_weight, module.in_proj_bias).unflatten(2, (3, module.num_heads, -1)).permute(
                2, 0, 3, 1, 4
            )
        )  # fmt: skip
        return query * query.shape[-1] ** -0.5, key

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """out_proj(mixed)."""
        return self._layer(layer).out_proj(mixed)

    def _layer(self, number: int) -> nn.MultiheadAttention:
        layer = self.layers[number]
        assert isinstance(layer, nn.MultiheadAttention)
        return layer


def read_model(model: nn.Module) -> AttentionReader:
    """A torchvision ViT that is held in memory; how images must come to it, it does not say.

    Of a Swin transformer the size of image that it is made for is taken; give `TorchvisionWindowReader` another side.
    """
    if isinstance(model, swin.SwinTransformer):
        version = 2 if any(isinstance(part, swin.ShiftedWindowAttentionV2) for part in model.modules()) else 1
        return TorchvisionWindowReader(model, "torchvision:SwinTransformer", side=SIDES[version])
    return TorchvisionReader(model, f"torchvision:{type(model).__name__}")


def open_model(request: Request) -> AttentionReader:
    """Build a torchvision ViT, with its default weights or random ones; its own code interpolates to another grid.

    `NAME,weights=FILE` takes those of a file of one's own, .safetensors or what torch.save wrote of tensors, and its
    classes, or those of `classes=N`. Raises InputError on weights that do not fit or cannot be read, and
    ValueError on an unknown name and on a grid that is not square, which torchvision's ViTs cannot take.
    """
    request, stage = request.stage("torchvision")
    name, file, classes = request.own_weights("torchvision")
    if name in WINDOWED:
        return _open_windows(request, name, file, classes, stage)
    if name not in NAMES:
        raise ValueError(
            f"{request.spec}: torchvision has no ViT of that name; choose one of: {', '.join((*NAMES, *WINDOWED))}"
        )
    if stage is not None:
        raise InputError(f"{request.spec}: stage={stage} is for Swin transformers; leave it out")
    request.check_prefix(1)
    weights = get_model_weights(name).DEFAULT
    recipe = weights.transforms()
    with torch.device("meta"):
        patch = get_model(name, weights=None).patch_size
    side = recipe.crop_size[0] if request.grid is None else request.grid[0] * patch
    if request.grid and request.grid[0] != request.grid[1]:
        raise ValueError(f"{request.spec}: grid must be square for torchvision's ViTs, got {request.grid}; try timm's")
    state = None if file is None else _state(request, file)
    if classes is None:
        classes = len(weights.meta["categories"]) if state is None else len(state.get(f"{HEAD}.weight", ()))
    model = get_model(name, weights=None, image_size=side, num_classes=classes)
    if state is not None and request.pretrained:
        _load(request, model, vit.interpolate_embeddings(side, patch, state) if POSITIONS in state else state)
    elif request.pretrained:
        with request.fetching(f"put the file of {weights.url} into torch.hub's folder `checkpoints`"):
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        model.load_state_dict(vit.interpolate_embeddings(side, patch, state))
    crop = recipe.crop_size[0] / recipe.resize_size[0]
    mode = recipe.interpolation.value
    preprocessing = Preprocessing((side, side), tuple(recipe.mean), tuple(recipe.std), crop=crop, interpolation=mode)
    own = recipe.crop_size[0] // patch
    trained = (own, own) if request.pretrained else None
    return TorchvisionReader(model, request.spec, preprocessing=preprocessing, trained_grid=trained)


def _open_windows(
    request: Request, name: str, file: Path | None, classes: int | None, stage: int | None
) -> AttentionReader:  # fmt: skip
    """A Swin transformer at the size that it was made for, with its default weights, a file's or random ones."""
    request.check_prefix(0)
    if request.grid:
        raise InputError(f"{request.spec}: torchvision's Swin transformers are read at their own size; leave grid out")
    weights = get_model_weights(name).DEFAULT
    recipe = weights.transforms()
    state = None if file is None else _state(request, file)
    if classes is None:
        classes = len(weights.meta["categories"]) if state is None else len(state.get("head.weight", ()))
    model = get_model(name, weights=None, num_classes=classes)
    if state is not None and request.pretrained:
        _load(request, model, state)
    elif request.pretrained:
        with request.fetching(f"put the file of {weights.url} into torch.hub's folder `checkpoints`"):
            model.load_state_dict(weights.get_state_dict(progress=True, check_hash=True, weights_only=True))
    side, kept = recipe.crop_size[0], recipe.crop_size[0] / recipe.resize_size[0]
    mode = recipe.interpolation.value
    way = Preprocessing((side, side), tuple(recipe.mean), tuple(recipe.std), crop=kept, interpolation=mode)
    return TorchvisionWindowReader(model, request.spec, side=side, stage=stage, preprocessing=way)


def _state(request: Request, file: Path) -> dict[str, Tensor]:
    """The tensors of a file; nothing else is unpickled."""
    with request.fetching("", here=True):
        if file.suffix == ".safetensors":
            return request.named_tensors(read_tensors(file), file)
        return request.named_tensors(torch.load(file, map_location="cpu", weights_only=True), file)


def _load(request: Request, model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a model its weights; InputError where some are missing, left over or of another shape."""
    with request.fetching("", here=True):
        report = model.load_state_dict(state, strict=False)
        request.check_loaded(model, report.missing_keys, report.unexpected_keys)
        if report.unexpected_keys:
            raise InputError(f"{request.spec}: the model has no {', '.join(report.unexpected_keys[:3])}; give the name "
                             "of the model that the file was saved from")  # fmt: skip
