"""A lab's ViTs as lab:NAME, found by `lab = "vit_adapter"` in the group aft_lens.vit_adapters."""

from pathlib import Path

from safetensors.torch import load_file
from torchvision.models import VisionTransformer

from aft_lens.extraction import AttentionReader, Preprocessing, Request
from aft_lens.extraction.adapters.torchvision_vit import TorchvisionReader


def open_model(request: Request) -> AttentionReader:
    """Attention of torchvision's class has a reader; for another, subclass AttentionReader and its three methods."""
    request.check_prefix(1)  # the class token
    side = 8 * (request.grid or (4, 4))[0]
    model = VisionTransformer(side, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    if request.pretrained:
        weights = Path(f"{request.name}.safetensors")
        with request.fetching(f"put it here as {weights}"):
            model.load_state_dict(load_file(weights))
    return TorchvisionReader(model, request.spec, preprocessing=Preprocessing((side, side), (0.5,) * 3, (0.5,) * 3))
