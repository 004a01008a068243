"""ViTs that are held in memory, and AFT-conv where their attention stood."""

import pytest
import timm
import torch
from torch import nn
from torchvision.models import VisionTransformer, alexnet
from transformers import ViTConfig, ViTForImageClassification

from aft_lens.extraction import as_reader, edit
from aft_lens.layers.mixers.aft_conv import AFTConv
from analyses.attention import attention_maps

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def timm_vit(**options):
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=32, num_heads=2, num_classes=5, **options
    )


def torchvision_vit():
    torch.manual_seed(0)
    return VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5)


def transformers_vit():
    torch.manual_seed(0)
    config = ViTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32,
                       patch_size=8)  # fmt: skip
    return ViTForImageClassification(config)


@pytest.mark.parametrize(
    ("make", "source"),
    [(timm_vit, "timm:vit_tiny_patch16_224"), (torchvision_vit, "torchvision:VisionTransformer"),
     (transformers_vit, "hf:ViTForImageClassification")],
)  # fmt: skip
def test_relative_attention_of_a_model_in_memory(make, source):
    model = make()
    found = attention_maps(model, [IMAGES])
    assert found.source == source
    assert found.maps.shape == (2, 2, 7, 7)
    assert found.error < 1e-4
    assert model.training


def test_a_subclass_of_a_users_own_is_read():
    class Mine(VisionTransformer):
        pass

    assert as_reader(Mine(32, 8, 1, 2, 16, 32)).num_heads == 2


def test_a_head_of_it_is_edited():
    model = timm_vit().eval()
    plain = model(IMAGES)
    with edit(model, 0, 1, attention=1 / 17):
        assert not torch.allclose(model(IMAGES), plain, atol=1e-6)
    assert torch.equal(model(IMAGES), plain)


def test_what_has_no_adapter_is_refused():
    with pytest.raises(ValueError, match=r"looked for a model of timm, torchvision, transformers .*found torch\.nn"):
        as_reader(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="looked for torchvision's VisionTransformer"):
        as_reader(alexnet())


def test_aft_conv_stands_in_for_attention():
    model = timm_vit(class_token=False, global_pool="avg")
    for block in model.blocks:
        block.attn = AFTConv(32, 4, window_size=3)
    model(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in model.blocks.parameters())
    layer = model.blocks[0].attn
    x = torch.randn(2, 16, 32)
    assert torch.equal(layer(x), layer(x, (4, 4)))


def test_what_aft_conv_does_not_take_is_refused():
    layer = AFTConv(32, 4)
    with pytest.raises(ValueError, match=r"17 tokens, one before a grid of 4 x 4.*class_token=False"):
        layer(torch.randn(1, 17, 32))
    with pytest.raises(ValueError, match="give grid="):
        layer(torch.randn(1, 15, 32))
    with pytest.raises(ValueError, match="takes no attn_mask"):
        layer(torch.randn(1, 16, 32), is_causal=True)
    with pytest.raises(ValueError, match="window_size must be odd"):
        AFTConv(32, 4, window_size=4)
