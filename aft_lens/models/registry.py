"""Models by name, in timm's vocabulary."""

from dataclasses import replace
from typing import Any

from aft_lens.models.config import ModelConfig
from aft_lens.models.named import Named
from aft_lens.models.vision import VisionModel

_WIDTH = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
_CONV = ((11, 32), (11, 192)), ((11, 16), (11, 384), (15, 384)), ((25, 32),)

_MODELS: dict[str, ModelConfig] = {}
for (_size, (_dim, _heads)), _kernels in zip(_WIDTH.items(), _CONV, strict=True):
    _MODELS[f"vit_{_size}_patch16_224"] = ModelConfig("attention", embed_dim=_dim, num_heads=_heads)
    _MODELS[f"aft_full_{_size}_patch16_224"] = ModelConfig("aft_full", embed_dim=_dim, num_heads=1)
    for _window, _h in _kernels:
        _MODELS[f"aft_conv_{_size}_{_window}_{_h}"] = ModelConfig(
            "aft_conv", embed_dim=_dim, num_heads=_h, window_size=_window
        )
_SMALL = ModelConfig(
    "aft_conv", img_size=8, patch_size=1, in_chans=1, num_classes=10, embed_dim=64, depth=4, num_heads=8,
    window_size=7, stem="conv", mlp_ratio=2.0, bias_rank=32,
)  # fmt: skip
_MODELS["vit_digits"] = replace(_SMALL, mixer="attention", num_heads=4)
_MODELS["aft_full_digits"] = replace(_SMALL, mixer="aft_full", num_heads=1)
_MODELS["aft_conv_digits"] = _SMALL
_GRID14 = replace(
    _SMALL,
    img_size=28,
    patch_size=2,
    embed_dim=96,
    depth=6,
    num_heads=16,
    window_size=11,
    stem="patch",
    mlp_ratio=4.0,
)
_MODELS["vit_fashion"] = replace(_GRID14, mixer="attention", num_heads=4)
_MODELS["aft_full_fashion"] = replace(_GRID14, mixer="aft_full", num_heads=1, bias_rank=64)
_MODELS["aft_conv_fashion"] = _GRID14
_CIFAR = replace(_GRID14, img_size=32, in_chans=3, embed_dim=192, depth=9, num_heads=32)
_MODELS["vit_cifar"] = replace(_CIFAR, mixer="attention", num_heads=3)
_MODELS["aft_conv_cifar"] = _CIFAR

MODELS = Named("model", _MODELS, VisionModel)
"""Every registered vision model."""


def list_models() -> list[str]:
    """Registered names, in alphabetical order."""
    return MODELS.names()


def model_config(name: str, **overrides: Any) -> ModelConfig:
    """The configuration of a registered name with fields replaced.

    Raises ValueError on an unknown name (and says which there are) and TypeError on an unknown field.
    """
    return MODELS.config(name, **overrides)


def create_model(name: str, **overrides: Any) -> VisionModel:
    """Build a registered model with fresh weights; errors as in `model_config`."""
    return MODELS.create(name, **overrides)
