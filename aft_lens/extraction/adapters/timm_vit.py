"""timm's ViTs: plain and BEiT-like ones with any prefix tokens, a stage of windowed ones, CaiT's class token."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.attention import Attention, AttentionRope
from timm.models.beit import Attention as BeitAttention
from timm.models.cait import Cait
from timm.models.eva import EvaAttention
from timm.models.vision_transformer_relpos import RelPosAttention
from torch import Tensor, nn

from aft_lens.errors import InputError
from aft_lens.extraction.adapters.hub import hub_once
from aft_lens.extraction.adapters.timm_attention import unfused, value
from aft_lens.extraction.adapters.timm_class import TimmClassReader
from aft_lens.extraction.adapters.timm_windows import WINDOWED, TimmWindowReader
from aft_lens.extraction.preprocessing import Preprocessing, channels
from aft_lens.extraction.reader import AttentionReader, AttentionSink
from aft_lens.extraction.request import Request

LAYERS = (Attention, AttentionRope, RelPosAttention, BeitAttention, EvaAttention)
"""timm's attention modules whose every target sees every token once."""


class TimmReader(AttentionReader):
    """Reads the attention modules of a timm ViT at their dropout, which their unfused form passes.

    The grid is that of the model's patch embedding and the prefix tokens are those that it counts (class,
    distillation, registers); `prefix` overrides the count. Raises ValueError on a model whose blocks have other
    attention than `LAYERS`: windowed, gated, differential or none.
    """

    def __init__(
        self,
        model: nn.Module,
        source: str = "model",
        *,
        prefix: int | None = None,
        preprocessing: Preprocessing | None = None,
        trained_grid: tuple[int, int] | None = None,
    ) -> None:
        layers = [module for module in model.modules() if isinstance(module, LAYERS)]
        embed: Any = getattr(model, "patch_embed", None)
        counted = getattr(model, "num_prefix_tokens", None)
        blocks = getattr(model, "blocks", ())
        if not layers or len(layers) != len(blocks) or counted is None or getattr(embed, "grid_size", None) is None:
            kinds = {type(module) for name, module in model.named_modules() if name.endswith("attn")}
            raise ValueError(
                f"{source}: looked for one of {class_names(LAYERS)} in each block of a timm ViT that has "
                f"patch_embed.grid_size and num_prefix_tokens; found {type(model).__name__} with "
                f"{class_names(kinds) or 'no attention'}; docs/guide/models.md lists what is read, and `attention "
                "--positions true` reads the positions of ConViT"
            )
        grid = tuple(embed.grid_size)
        super().__init__(
            source,
            model,
            layers,
            grid=grid,
            prefix=counted if prefix is None else prefix,
            num_heads=layers[0].num_heads,
            image_size=tuple(embed.img_size),
            in_chans=_in_chans(model),
            preprocessing=preprocessing,
            trained_grid=trained_grid or grid,
        )

    @contextmanager
    def exposed(self, sink: AttentionSink) -> Iterator[None]:
        """Unfuse every layer and read its weights at the dropout that they pass."""

        with unfused(self.layers, sink):
            yield

    def values(self, layer: int, x: Tensor) -> Tensor:
        """The layer's values, whatever form its projections have."""
        return value(self.layers[layer], x)

    def queries_keys(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of timm's plain Attention, with its norms of queries and keys; ValueError on its other kinds."""
        module: Any = self.layers[layer]
        if not isinstance(module, Attention):
            return super().queries_keys(layer, x)
        query, key, _ = module.qkv(x).unflatten(2, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return module.q_norm(query) * module.scale, module.k_norm(key)

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """proj(gate * norm(mixed)), with gate and norm where the layer has them."""
        module: Any = self.layers[layer]
        norm, gate = getattr(module, "norm", None), getattr(module, "gate", None)
        if norm is not None:
            mixed = norm(mixed)
        if gate is not None:
            mixed = mixed * gate(x).sigmoid()
        return module.proj_drop(module.proj(mixed))


def open_model(request: Request) -> AttentionReader:
    """Build or download a timm ViT; timm resamples its position embeddings or bias tables to another grid."""
    request, stage = request.stage("timm")
    model, trained_grid = load(request)
    if isinstance(model, WINDOWED):
        request.check_prefix(0)
        reader: AttentionReader = TimmWindowReader(model, request.spec, stage=stage)
    elif stage is not None:
        raise InputError(f"{request.spec}: stage={stage} is for Swin, SwinV2 and MaxViT; leave it out")
    elif isinstance(model, Cait):
        request.check_prefix(1)
        reader = TimmClassReader(model, request.spec)
    else:
        reader = TimmReader(model, request.spec, prefix=request.prefix, trained_grid=trained_grid)
    with request.fetching("", here=True):
        reader.preprocessing = preprocessing_of(model)
    return reader


def read_model(model: nn.Module) -> AttentionReader:
    """A timm ViT that is held in memory, with the images that its configuration asks for."""
    architecture = getattr(model, "default_cfg", {}).get("architecture") or type(model).__name__
    source = f"timm:{architecture}"
    kinds = ((WINDOWED, TimmWindowReader), (Cait, TimmClassReader), (nn.Module, TimmReader))
    reader = next(kind(model, source) for known, kind in kinds if isinstance(model, known))
    reader.preprocessing = preprocessing_of(model)
    return reader


def load(request: Request) -> tuple[nn.Module, tuple[int, int] | None]:
    """A timm model of the grid that was asked for, and the grid that its weights were resampled from, if any.

    `NAME,weights=FILE` takes the weights of a file of one's own, .safetensors or what torch.save wrote of tensors, and
    its classes, or those of `classes=N`. Raises ValueError on an unknown name, on one without pretrained weights, and
    on a grid for a model without patches; InputError on weights that do not fit or cannot be read.
    """
    name, file, classes = request.own_weights("timm")
    own = _own_weights(request, name, file, classes)
    local = name.startswith(("local-dir:", "hf-hub:"))
    if not local and not timm.is_model(name.split(".")[0]):
        near = get_close_matches(name, timm.list_models(f"{name.split('_')[0]}_*"), n=4, cutoff=0.2)
        raise ValueError(f"{request.spec}: timm has no model of that name; near it are: {', '.join(near) or 'none'}")
    if not local and request.pretrained and not own and not timm.models.is_model_pretrained(name):
        raise ValueError(
            f"{request.spec}: timm has no weights for it; give a file as timm:{name},weights=FILE, or pass "
            "pretrained=False (--pretrained false)"
        )
    here = bool(own) or name.startswith("local-dir:")
    fetch = request.pretrained and not here
    local_copy = "give a folder of a downloaded model as timm:local-dir:PATH"
    with hub_once() if fetch else nullcontext(), request.fetching(local_copy, here=here):
        if request.grid is None:
            return _checked(request, timm.create_model(name, pretrained=request.pretrained, **own)), None
        with torch.device("meta"):
            embed: Any = getattr(timm.create_model(name, pretrained=False), "patch_embed", None)
        if embed is None:
            raise InputError(f"{request.spec}: grid {request.grid} was asked for, but the model has no patches")
        size = tuple(side * patch for side, patch in zip(request.grid, embed.patch_size))
        model = timm.create_model(name, pretrained=request.pretrained, img_size=size, **own)
        return _checked(request, model), tuple(embed.grid_size) if request.pretrained else None


def _checked(request: Request, model: nn.Module) -> nn.Module:
    """The model, if its weights are numbers; timm itself refuses names that do not fit."""
    request.check_loaded(model)
    return model


def _own_weights(request: Request, name: str, file: Path | None, classes: int | None) -> dict[str, Any]:
    """What `timm.create_model` needs for weights=FILE and classes=N."""
    if file is None:
        return {}
    with request.fetching("", here=True):
        # By safetensors, or torch.load with weights_only.
        state = request.named_tensors(timm.models.load_state_dict(str(file)), file)
        head = timm.get_pretrained_cfg_value(name, "classifier") or "head"
    found = state.get(f"{head}.weight")
    count = classes if classes is not None else 0 if found is None else len(found)
    return {"num_classes": count, "pretrained_cfg_overlay": {"state_dict": state, "num_classes": count}}


def preprocessing_of(model: Any) -> Preprocessing:
    """The images that a timm model's own configuration asks for, at the size that it was built for."""
    config = timm.data.resolve_model_data_config(model)
    count = _in_chans(model)
    return Preprocessing(
        tuple(getattr(model, "img_size", None) or model.patch_embed.img_size),
        channels(config["mean"], count),
        channels(config["std"], count),
        crop=config["crop_pct"],
        interpolation=config["interpolation"],
    )


def _in_chans(model: nn.Module) -> int:
    """Channels of the image: what the first convolution reads."""
    return next(module for module in model.modules() if isinstance(module, nn.Conv2d)).in_channels


def class_names(kinds: Iterable[type]) -> str:
    """Classes with the module that each is of."""
    return ", ".join(sorted(f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}" for kind in kinds))
