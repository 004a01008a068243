"""Vision models over every mixer."""

from aft_lens.models.config import ModelConfig
from aft_lens.models.registry import create_model, list_models, model_config
from aft_lens.models.vision import VisionModel

__all__ = ["ModelConfig", "VisionModel", "create_model", "list_models", "model_config"]
