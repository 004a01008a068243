"""Hugging Face transformers' ViT, DeiT, DINOv2, DINOv3, ViTMAE and BEiT, the vision towers of CLIP and SigLIP, Swin."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL.Image import Resampling
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification

from aft_lens.errors import InputError
from aft_lens.extraction.adapters.hf_eager import eager
from aft_lens.extraction.adapters.hf_windows import HFWindowReader
from aft_lens.extraction.adapters.hub import hub_once
from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.extraction.reader import AttentionReader, AttentionSink
from aft_lens.extraction.request import Request
from aft_lens.text_files import read_json


@dataclass(frozen=True)
class Family:
    """What sets a family's models apart."""

    places: str = "asked"
    """How position embeddings come to another grid: "asked" to, "always" interpolated, "rotary" (there are none, any
    grid will do), or "fixed" (they do not)."""
    pooled: bool = False
    """True: what the model pools is trained, and is its features."""
    tower: str = ""
    """Class of the vision half, for a family whose whole models read text too."""


FAMILIES = {
    "vit": Family(),
    "deit": Family(),
    "dinov2": Family("always"),
    "dinov2_with_registers": Family("always"),
    "dinov3_vit": Family("rotary"),
    "vit_mae": Family(),
    "beit": Family("fixed"),
    "clip": Family(pooled=True, tower="CLIPVisionModel"),
    "clip_vision_model": Family(pooled=True),
    "siglip": Family(pooled=True, tower="SiglipVisionModel"),
    "siglip_vision_model": Family(pooled=True),
}
"""By the values of a configuration's `model_type` that are read."""
WINDOWED = "swin"
"""The `model_type` whose stages are read one at a time."""
TOKENS = ("cls_token", "distillation_token", "class_embedding")
"""Embeddings of which each is one token before the patches."""

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
"""What a model of the Hub can be called; anything else is a path."""
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Files of a folder that say how images must come."""
ADAPTER = "adapter_config.json"
"""What peft writes beside an adapter's weights."""
UNUSED = ("pooler.", "vit.pooler.", "deit.pooler.", "embeddings.mask_token", "dinov2.embeddings.mask_token")
"""Weights that no attention and no logit rests on: folders are often saved without them."""
_CLASSIFIED = (
    "{}: a classifier on top of CLIP or SigLIP is not read; save its vision model (model.vision_model) and read that, "
    "with --probe 1000 where classes are needed"
)
_OWN_CODE = "{} brings code of its own (auto_map), which is never run here; save the model with a class of transformers"


class HFReader(AttentionReader):
    """Reads the attention modules of a transformers ViT, which return their weights in eager form.

    `grid` is the patches (rows, columns) of the images that will come, those of the configuration's `image_size` if
    left out; position embeddings are interpolated to another one. Of a whole CLIP or SigLIP the vision half is read;
    ViTMAE masks nothing. Raises InputError on a model type that is none of `FAMILIES`, on another grid for one whose
    positions are fixed, and where position embeddings that are not square would be interpolated: transformers takes a
    square for granted (16 positions of a 2 x 8 grid would silently become 4 x 4).
    """

    def __init__(
        self,
        model: nn.Module,
        source: str = "model",
        *,
        grid: tuple[int, int] | None = None,
        prefix: int | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        if hasattr(model, "vision_model") and hasattr(model, "classifier"):
            raise InputError(_CLASSIFIED.format(source))
        model = getattr(model, "vision_model", model)
        config: Any = getattr(model, "config", None)
        found = getattr(config, "model_type", type(model).__name__)
        family = FAMILIES.get(found)
        embeddings = getattr(model, "embeddings", None) or getattr(
            getattr(model, "base_model", None), "embeddings", None
        )  # of a classifier those of its base
        layers = [module for module in model.modules() if hasattr(module, "v_proj") and _projection(module)]
        if hasattr(model, "decoder"):  # ViTMAE's reads no image
            layers = layers[: config.num_hidden_layers]
        if family is None or embeddings is None or not layers:
            raise InputError(
                f"{source}: looked for a transformers model of type {', '.join(FAMILIES)} with `embeddings` and "
                f"attention modules that have v_proj and o_proj; found type {found} with {len(layers)} such modules"
            )
        patch, size = _pair(config.patch_size), _pair(config.image_size)
        trained = size[0] // patch[0], size[1] // patch[1]
        grid = grid or trained
        if grid != trained and family.places == "fixed":
            raise InputError(
                f"{source}: models of type {found} have positions for {trained[0]} x {trained[1]} patches alone, "
                f"{grid[0]} x {grid[1]} were asked for; leave grid out, or use timm's model"
            )
        interpolates = (grid != trained and family.places == "asked") or family.places == "always"
        if interpolates and trained[0] != trained[1]:
            raise InputError(
                f"{source}: position embeddings of a {trained[0]} x {trained[1]} grid cannot be interpolated to "
                f"{grid[0]} x {grid[1]}: transformers takes them for a square; use timm's model"
            )
        registers = getattr(embeddings, "register_tokens", None)
        counted = sum(getattr(embeddings, name, None) is not None for name in TOKENS)
        counted += 0 if registers is None else registers.shape[1]
        self.asks_to_interpolate = interpolates and family.places == "asked"
        self.pooled, self.masks = family.pooled, found == "vit_mae"
        super().__init__(
            source,
            model,
            layers,
            grid=grid,
            prefix=counted if prefix is None else prefix,
            num_heads=config.num_attention_heads,
            image_size=(grid[0] * patch[0], grid[1] * patch[1]),
            in_chans=config.num_channels,
            preprocessing=preprocessing,
            trained_grid=trained,
        )

    def logits(self, images: Tensor) -> Tensor:
        """The class logits, or the last hidden state of a model without a classifier."""
        output = self._output(images)
        return output.logits if self._classifies(output) else output.last_hidden_state

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """As any reader's; of CLIP and SigLIP the features are what they pool."""
        return (self._output(images).pooler_output, None) if self.pooled else super().read(images)

    def _output(self, images: Tensor) -> Any:
        options: dict[str, Any] = {"interpolate_pos_encoding": True} if self.asks_to_interpolate else {}
        if not self.masks:
            return self.model(pixel_values=images, **options)
        config: Any = self.model.config
        base: Any = self.model.base_model
        count, ratio = self.grid[0] * self.grid[1], config.mask_ratio
        order = torch.arange(count, device=images.device, dtype=torch.float32).expand(len(images), -1)
        try:
            config.mask_ratio = 0.0  # every patch is read, in its place: patches are sorted by the noise
            return base(pixel_values=images, noise=order, **options)
        finally:
            config.mask_ratio = ratio

    @staticmethod
    def _classifies(output: Any) -> bool:
        return getattr(output, "logits", None) is not None

    def exposed(self, sink: AttentionSink) -> AbstractContextManager[None]:
        """Run attention in eager form and read the weights that each module returns beside its output."""
        return eager(self.model, self.layers, sink)

    def values(self, layer: int, x: Tensor) -> Tensor:
        """v_proj(x) by head."""
        module: Any = self.layers[layer]
        return module.v_proj(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def queries_keys(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """q_proj(x), scaled, and k_proj(x) by head."""
        module: Any = self.layers[layer]
        query, key = (
            one(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2) for one in (module.q_proj, module.k_proj)
        )  # fmt: skip
        return query * query.shape[-1] ** -0.5, key

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """The output projection of what the heads read."""
        return _projection(self.layers[layer])(mixed)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside the block transformers lists no weights that a model does not take: those of text halves and decoders."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


def _projection(module: nn.Module) -> Any:
    """An attention module's output projection, whatever it is called; None without one."""
    return getattr(module, "o_proj", None) or getattr(module, "out_proj", None)


def read_model(model: nn.Module) -> AttentionReader:
    """A transformers ViT that is held in memory; how images must come to it, its image processor alone would say."""
    config = getattr(model, "config", None)
    name = getattr(config, "name_or_path", "") or type(model).__name__
    if getattr(config, "model_type", "") == WINDOWED:
        return HFWindowReader(model, f"hf:{name}")
    return HFReader(model, f"hf:{name}")


def open_model(request: Request) -> AttentionReader:
    """Read a folder's or fetch a name's safetensors; without `grid`, at the size that its image processor feeds.

    Nothing is unpickled, and no code of a folder or repository runs. Raises FileNotFoundError for a folder without
    safetensors, and InputError for one with code of its own, one that cannot be read, or one that leaves weights
    random.
    """
    request, stage = request.stage("hf")
    name, folder = request.name, Path(request.name).expanduser()
    if folder.is_dir():
        name = str(folder)
        _check_folder(request, folder)
    elif name.startswith((".", "/", "~")) or not HUB_NAME.fullmatch(name):
        raise FileNotFoundError(
            f"{request.spec}: there is no folder {name}, and the Hub's names are NAME or ORG/NAME; give a folder that "
            "save_pretrained has written"
        )
    here = folder.is_dir()
    local = f"give a downloaded folder as hf:PATH (there is no folder {name} here)"
    with nullcontext() if here else hub_once(), request.fetching(local, here=here):
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        windowed = config.model_type == WINDOWED
        if config.model_type not in FAMILIES and not windowed:
            raise InputError(
                f"{request.spec}: looked for a model of type {', '.join((*FAMILIES, WINDOWED))}, found type "
                f"{config.model_type}"
            )
        if stage is not None and not windowed:
            raise InputError(f"{request.spec}: stage={stage} is for Swin transformers; leave it out")
        if getattr(config, "auto_map", None):
            raise InputError(_OWN_CODE.format(request.spec))
        classifies = any("ImageClassification" in word for word in config.architectures or ())
        kind: Any = AutoModelForImageClassification if classifies else AutoModel
        if classifies and FAMILIES.get(config.model_type, Family()).pooled:
            raise InputError(_CLASSIFIED.format(request.spec))
        if tower := FAMILIES.get(config.model_type, Family()).tower:  # a whole model's text half is not read
            kind, config = getattr(transformers, tower), config.vision_config
        if request.pretrained:
            with _quiet():
                model, report = kind.from_pretrained(
                    name, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
                )
            missing = {key for key in report["missing_keys"] if not key.startswith(UNUSED)}
            request.check_loaded(model, missing, report["unexpected_keys"])
        else:
            model = kind._from_config(config) if tower else kind.from_config(config, dtype=torch.float32)
        described = not folder.is_dir() or any((folder / file).is_file() for file in PROCESSORS)
        processor = _processor(name, folder) if described else None
        if windowed:
            if request.grid is not None:
                raise InputError(f"{request.spec}: a Swin transformer is read at its own size; leave grid out")
            windows = HFWindowReader(model, request.spec, stage=stage)
            windows.preprocessing = processor and preprocessing_of(processor, windows.image_size)
            return windows
        patch = _pair(config.patch_size)
        grid = request.grid
        if grid is None and processor is not None:
            fed = _fed(processor)
            grid = fed[0] // patch[0], fed[1] // patch[1]
        reader = HFReader(model, request.spec, grid=grid, prefix=request.prefix)
        reader.preprocessing = processor and preprocessing_of(processor, reader.image_size)
    return reader


def preprocessing_of(processor: Any, size: tuple[int, int]) -> Preprocessing:
    """The images of an image processor, at a size in pixels."""
    crop = 1.0
    if getattr(processor, "do_center_crop", False):
        edge = processor.size.get("shortest_edge") or processor.size["height"]
        crop = min(1.0, processor.crop_size["height"] / edge)
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
    mean, std = ((value,) * 3 if isinstance(value, int | float) else tuple(value) for value in (mean, std))
    return Preprocessing(size, mean, std, crop=crop, interpolation=Resampling(processor.resample).name.lower())


def _check_folder(request: Request, folder: Path) -> None:
    """InputError or FileNotFoundError for a folder with code of its own, or without weights that are read."""
    if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file():
        raise InputError(
            f"{request.spec}: the folder holds an adapter (LoRA) alone, without the model that it changes; merge the "
            "two (peft: merge_and_unload), save the whole model, and give its folder"
        )
    for file in ("config.json", *PROCESSORS):
        if (folder / file).is_file() and "auto_map" in read_json(folder / file):
            raise InputError(_OWN_CODE.format(f"{request.spec}: {file}"))
    if request.pretrained and not list(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{request.spec}: the folder has no .safetensors, and other formats are unpickled and so not read; "
            "convert it with save_pretrained, or pass pretrained=False (--pretrained false)"
        )


def _processor(name: str, folder: Path) -> Any:
    """The image processor of a folder or name; one in the form of transformers 4 is a feature extractor's."""
    file = folder / PROCESSORS[0]
    kind = read_json(file).get("image_processor_type") if file.is_file() else None
    if isinstance(kind, str) and kind.endswith("FeatureExtractor"):
        return getattr(transformers, kind.replace("FeatureExtractor", "ImageProcessor")).from_pretrained(name)
    return AutoImageProcessor.from_pretrained(name, trust_remote_code=False)


def _fed(processor: Any) -> tuple[int, int]:
    """Rows and columns of the images that an image processor gives, in pixels."""
    size = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    rows, columns = (size.get(side) for side in ("height", "width"))
    if rows is None or columns is None:
        raise InputError(f"the image processor keeps each image's shape ({dict(size)}); ask for a grid")
    return rows, columns


def _pair(value: Any) -> tuple[int, int]:
    """One number for both sides, or two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))
