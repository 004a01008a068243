"""Vision models and decoders over every mixer."""

from aft_lens.models.config import ModelConfig
from aft_lens.models.decoder import Decoder, DecoderConfig, causal_mixers
from aft_lens.models.given import as_model
from aft_lens.models.layer_biases import biases, conv_biases, conv_layers, directions, position_biases
from aft_lens.models.registry import create_model, list_models, model_config
from aft_lens.models.vision import VisionModel, seeded_model

__all__ = [
    "Decoder",
    "DecoderConfig",
    "ModelConfig",
    "VisionModel",
    "as_model",
    "biases",
    "causal_mixers",
    "conv_biases",
    "conv_layers",
    "create_model",
    "directions",
    "list_models",
    "model_config",
    "position_biases",
    "seeded_model",
]
