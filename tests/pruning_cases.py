"""A tiny model and images that the pruning tests share."""

import torch
from torch.utils.data import TensorDataset

from aft_lens.models import create_model
from analyses.pruning.cutting.compact import conv_mixers


def trained_like(kind="free", **overrides):
    """A tiny AFT-conv whose biases and classifier are far from their start."""
    torch.manual_seed(0)
    model = create_model(
        "aft_conv_digits", depth=2, embed_dim=16, num_heads=4, window_size=5, position_bias=kind, **overrides
    ).eval()
    for mixer in conv_mixers(model):
        bias = mixer.position_bias
        inner = bias.inner if kind == "single" else bias
        with torch.no_grad():
            if kind != "free":
                inner.gamma.uniform_(0.5, 1.5)
                inner.beta.fill_(0.3)
            else:
                inner.weight.normal_(0.2, 1.0)
    for name, parameter in model.named_parameters():
        if "position_bias" not in name and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def two_batches():
    """Two batches of 12 random images with labels."""
    torch.manual_seed(1)
    data = TensorDataset(torch.randn(24, 1, 8, 8), torch.randint(0, 10, (24,)))
    return [(data.tensors[0][i : i + 12], data.tensors[1][i : i + 12]) for i in (0, 12)]
