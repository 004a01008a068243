"""The two kinds of models, each a configuration and the module that is built from it."""

from typing import overload

from aft_lens.models.config import ModelConfig
from aft_lens.models.decoder import Decoder, DecoderConfig
from aft_lens.models.vision import VisionModel

Config = ModelConfig | DecoderConfig
Model = VisionModel | Decoder
KINDS: dict[str, type[Config]] = {"vision": ModelConfig, "decoder": DecoderConfig}
"""Configurations by the word for their kind, as checkpoints keep it."""


def kind_of(config: Config) -> str:
    """The word for a configuration's kind."""
    return next(word for word, kind in KINDS.items() if isinstance(config, kind))


@overload
def build_model(config: ModelConfig) -> VisionModel: ...
@overload
def build_model(config: DecoderConfig) -> Decoder: ...
@overload
def build_model(config: Config) -> Model: ...
def build_model(config: Config) -> Model:
    """The model of a configuration, with fresh weights."""
    return VisionModel(config) if isinstance(config, ModelConfig) else Decoder(config)
