"""Vision models and decoders over every mixer."""

from aft_lens.models.config import MIXERS, RIVALS, ModelConfig
from aft_lens.models.decoder import CAUSAL_MIXERS, Decoder, DecoderConfig
from aft_lens.models.registry import create_model, list_models, model_config
from aft_lens.models.resnet import resnet50
from aft_lens.models.vision import VisionModel

__all__ = [
    "CAUSAL_MIXERS",
    "MIXERS",
    "RIVALS",
    "Decoder",
    "DecoderConfig",
    "ModelConfig",
    "VisionModel",
    "create_model",
    "list_models",
    "model_config",
    "resnet50",
]
