"""What a caller gave in a model's place."""

from pathlib import Path
from typing import Any

from torch import nn


def as_model(model: Any) -> nn.Module:
    """The model as it is; ValueError, with the next step, where it is a name, a folder, a checkpoint or none at all."""
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, str | Path):
        raise ValueError(
            f"a model is needed, got {str(model)!r}; aft_lens.load({str(model)!r}).model is a checkpoint's"
        )
    if isinstance(getattr(model, "model", None), nn.Module):
        raise ValueError(f"a model is needed, got a {type(model).__name__}; give its .model")
    raise ValueError(f"a model (torch.nn.Module) is needed, got {type(model).__name__}; see aft_lens.load and create")
