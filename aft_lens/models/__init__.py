"""Vision models and decoders over every mixer."""

from aft_lens.models.config import ModelConfig
from aft_lens.models.decoder import Decoder, DecoderConfig, causal_mixers
from aft_lens.models.decoder_registry import create_decoder, decoder_config, list_decoders
from aft_lens.models.generate import Reader, Sampling, generate
from aft_lens.models.given import as_model
from aft_lens.models.kinds import KINDS, Config, Model, build_model, kind_of
from aft_lens.models.layer_biases import biases, conv_biases, conv_layers, directions, position_biases
from aft_lens.models.registry import create_model, list_models, model_config
from aft_lens.models.vision import VisionModel, seeded_model

__all__ = [
    "KINDS",
    "Config",
    "Decoder",
    "DecoderConfig",
    "Model",
    "ModelConfig",
    "Reader",
    "Sampling",
    "VisionModel",
    "as_model",
    "biases",
    "build_model",
    "causal_mixers",
    "conv_biases",
    "conv_layers",
    "create_decoder",
    "create_model",
    "decoder_config",
    "directions",
    "generate",
    "kind_of",
    "list_decoders",
    "list_models",
    "model_config",
    "position_biases",
    "seeded_model",
]
