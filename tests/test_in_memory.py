"""ViTs that are held in memory, and AFT-conv where their attention stood."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision.models import VisionTransformer, alexnet
from transformers import ViTConfig, ViTForImageClassification

from aft_lens.extraction import as_reader, edit
from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.layers.position_bias import Indexed
from analyses.attention import attention_maps
from analyses.bias import position_bias_maps
from analyses.explain.causal import outcome
from analyses.keys import key_maps
from analyses.pruning import prune_to_indexing

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


def aft_timm():
    """A timm ViT with AFT-conv where its attention stood."""
    model = timm_vit(class_token=False, global_pool="avg")
    for block in model.blocks:
        block.attn = AFTConv(32, 4, window_size=3)
        torch.nn.init.normal_(block.attn.position_bias.gamma)
    return model.eval()


def test_maps_and_edits_of_aft_conv_inside_another_model():
    model = aft_timm()
    maps = position_bias_maps(model)
    assert maps.maps.shape == (2, 4, 3, 3)
    w = model.blocks[1].attn.position_bias.dense()
    np.testing.assert_allclose(maps.maps[1], torch.expm1(w).detach(), rtol=1e-5)
    share = torch.cat([w.detach().flatten(1), torch.zeros(4, 16 - 9)], 1).softmax(-1)  # of the grid's 4 x 4 sources
    np.testing.assert_allclose(maps.moved[1], (share - 1 / 16).abs().sum(-1) / 2, rtol=1e-4)
    assert key_maps(model, IMAGES[0]).maps.shape == (2, 4, 4, 4)
    plain = model(IMAGES)
    with edit(model, 1, 2, bias=0) as before:
        assert torch.equal(before, w[2])
        assert not position_bias_maps(model).maps[1, 2].any()
        assert not torch.equal(model(IMAGES), plain)
    assert torch.equal(model(IMAGES), plain)
    with edit(model, 0, 1, key=0):
        assert not torch.equal(model(IMAGES), plain)


def test_kept_offsets_inside_another_model_are_laid_out():
    model = aft_timm()
    model.blocks[1].attn.position_bias = Indexed(torch.full((4, 1), 2.0), torch.tensor([[[0, 1]]]).expand(4, 1, 2))
    maps = position_bias_maps(model).maps
    assert maps[1, 0].nonzero()[0].tolist() == [1]
    assert maps[1, 0].nonzero()[1].tolist() == [2]
    model.blocks[1].attn = AFTConv(32, 4, window_size=5)
    with pytest.raises(ValueError, match="same heads and window to be read together"):
        position_bias_maps(model)


def test_what_is_not_done_inside_another_model_says_so():
    model, batch = aft_timm(), (IMAGES, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"needs a model of aft_lens\.load .* 2 AFT-conv layers are read by"):
        prune_to_indexing(model, [batch])
    for call in (lambda: attention_maps(model, IMAGES), lambda: edit(model, 0, 0, attention=0).__enter__()):
        with pytest.raises(ValueError, match=r"AFT-conv in 2 layers, which have no attention.*bias_maps\(model\)"):
            call()
    with pytest.raises(ValueError, match=r"\(VisionTransformer\) has no position biases; aft_lens\.attention_maps"):
        position_bias_maps(timm_vit())
    with pytest.raises(ValueError, match="the model has none; give attention"):
        edit(timm_vit(), 0, 0, bias=0).__enter__()


@pytest.mark.parametrize("given", ["digits-conv", Path("digits-conv")])
def test_a_name_in_a_model_s_place_says_how_to_load_it(given):
    for call in (
        position_bias_maps, as_reader, lambda it: attention_maps(it, IMAGES), lambda it: key_maps(it, IMAGES[0]),
        lambda it: prune_to_indexing(it, []), lambda it: edit(it, 0, 0, bias=0).__enter__(),
        lambda it: outcome(it, []),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"a model is needed, got 'digits-conv'; aft_lens\.load\('digits-conv'\)"):
            call(given)


def test_attention_takes_a_tensor_as_well_as_batches():
    model = timm_vit()
    found = [attention_maps(model, given) for given in (IMAGES, [IMAGES], [(IMAGES, torch.zeros(3))])]
    assert all(np.array_equal(found[0].maps, other.maps) for other in found)
    for given, words in (
        (IMAGES[0], r"images of 3 channels, b x 3 x rows x columns.*got shape \(3, 32, 32\); .* takes 32 x 32 pixels"),
        (IMAGES[:, :1], r"got shape \(3, 1, 32, 32\)"),
        (torch.zeros(1, 3, 16, 16), r"images of 32 x 32 pixels, which timm:vit_tiny_patch16_224 takes, got 16 x 16"),
        ("digits", "batches must be a tensor of images .* got str; aft_lens.image_batches"),
        ([{"image": IMAGES}], "got dict"),
        ([], "at least one image"),
    ):
        with pytest.raises(ValueError, match=words):
            attention_maps(model, given)


def test_aft_conv_stands_in_for_attention():
    model = aft_timm()
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
