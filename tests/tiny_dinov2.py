"""A DINOv2 of a few thousand weights, and the folder that transformers makes of it."""

import json

import torch
from transformers import Dinov2Config, Dinov2Model

TINY = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7,
    "num_labels": 3,
}  # fmt: skip
PREPROCESSING = {
    "image_processor_type": "BitImageProcessor", "do_resize": True, "size": {"shortest_edge": 28},
    "do_center_crop": True, "crop_size": {"height": 28, "width": 28}, "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip


def dinov2(kind=Dinov2Model):
    """Random weights, large enough for attention that is far from uniform; a grid of 4 x 4."""
    torch.manual_seed(0)
    model = kind(Dinov2Config(**TINY)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def save_dinov2(folder):
    """What `hf:FOLDER` reads."""
    dinov2().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING))
    return folder
