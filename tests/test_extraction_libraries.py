"""Adapters of torchvision, timm and transformers: their weights against the libraries' own, without a network."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.nn.functional import scaled_dot_product_attention
from torchvision.models.vision_transformer import VisionTransformer
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    CLIPConfig,
    CLIPForImageClassification,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

from aft_lens.extraction import as_reader, can_resume, entering, open_source, stream_relative
from aft_lens.extraction.adapters.hf_vit import HFReader
from aft_lens.extraction.adapters.timm_vit import TimmReader
from aft_lens.extraction.adapters.torchvision_vit import TorchvisionReader

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5, "img_size": (48, 32)}
TIMM = {
    "vit_tiny_patch16_224": 1,
    "vit_medium_patch16_gap_240": 0,
    "vit_betwixt_patch16_reg4_gap_256": 4,
    "vit_small_patch14_reg4_dinov2": 5,
    "deit_tiny_patch16_224": 1,
    "deit_tiny_distilled_patch16_224": 2,
    "deit3_small_patch16_224": 1,
    "vit_relpos_small_patch16_224": 0,
    "vit_relpos_medium_patch16_cls_224": 1,
    "vit_srelpos_small_patch16_224": 0,
    "beit_base_patch16_224": 1,
    "vit_small_patch16_rope_224": 1,
    "eva02_tiny_patch14_224": 1,
}
"""timm's models, and their tokens before the patches."""
HF = {
    "vit": (ViTConfig, ViTForImageClassification, 1),
    "deit": (DeiTConfig, DeiTForImageClassificationWithTeacher, 2),
    "dinov2": (Dinov2Config, Dinov2Model, 1),
    "registers": (Dinov2WithRegistersConfig, Dinov2WithRegistersForImageClassification, 5),
    "dinov3": (DINOv3ViTConfig, DINOv3ViTModel, 3),
    "beit": (BeitConfig, BeitForImageClassification, 1),
    "clip": (CLIPVisionConfig, CLIPVisionModel, 1),
    "siglip": (SiglipVisionConfig, SiglipVisionModel, 0),
}
"""transformers' configurations and models, and their tokens before the patches."""
OWN = {"dinov3": {"num_register_tokens": 2}, "beit": {"use_relative_position_bias": True}}
"""What a family's configuration needs beside what all have."""
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def randomised(model):
    """Weights large enough for attention that is far from uniform and for outputs that it changes."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "rope" not in name:
            torch.nn.init.normal_(parameter, std=0.6)
    return model.eval()


def timm_reader(name, **fields):
    patch14 = {"img_size": (42, 28)} if "patch14" in name else {}
    return TimmReader(randomised(timm.create_model(name, **{**SMALL, **patch14, **fields})), name)


def hf_reader(name, image_size=32, **options):
    config, model, _ = HF[name]
    fields = {**TINY, **OWN.get(name, {})}
    model = randomised(model(config(**fields, image_size=image_size, patch_size=16, num_labels=5)))
    return HFReader(model, name, **options)


def torchvision_reader():
    fields = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32, "num_classes": 5}
    return TorchvisionReader(randomised(VisionTransformer(image_size=32, patch_size=16, **fields)))


def images_of(reader, count=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, reader.in_chans, *reader.image_size, generator=generator)


@torch.no_grad()
def extracted(reader, images):
    weights = {}
    with reader.exposed(weights.__setitem__):
        reader.logits(images)
    return [weights[layer] for layer in range(len(reader.layers))]


@torch.no_grad()
def fused(reader, images, monkeypatch):
    """Weights that a library's fused attention used: its own call again, with the identity as values."""
    weights = []

    def recording(query, key, value, attn_mask=None, **options):
        eye = torch.eye(key.shape[-2]).expand(*key.shape[:-1], key.shape[-2])
        weights.append(scaled_dot_product_attention(query, key, eye, attn_mask=attn_mask, **options))
        return scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, **options)

    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", recording)
        reader.logits(images)
    return weights


@torch.no_grad()
def check_edits(reader, images, monkeypatch):
    """Weights replaced by the reader against the same replacement inside the library's own fused attention."""
    before = reader.logits(images)

    def rolled(query, key, value, attn_mask=None, *_plain, **options):
        eye = torch.eye(key.shape[-2]).expand(*key.shape[:-1], key.shape[-2])
        return scaled_dot_product_attention(query, key, eye, attn_mask=attn_mask, **options).roll(1, -1) @ value

    with monkeypatch.context() as patch:
        patch.setattr(F, "scaled_dot_product_attention", rolled)
        expected = reader.logits(images)
    assert (expected - before).abs().max() > 1e-2
    with reader.edited(lambda _layer, attention: attention.roll(1, -1)):
        torch.testing.assert_close(reader.logits(images), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reader.logits(images), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", TIMM)
def test_timm_weights_are_those_of_its_fused_attention(name, monkeypatch):
    reader = timm_reader(name)
    assert (reader.grid, reader.prefix) == ((3, 2), TIMM[name])
    images = images_of(reader)
    expected = fused(reader, images, monkeypatch)
    assert len(expected) == 2, "the model runs fused when nobody looks"
    for found, own in zip(extracted(reader, images), expected, strict=True):
        torch.testing.assert_close(found, own, rtol=0, atol=1e-5)
        assert found.std() > 1e-3
    assert stream_relative(reader, [images]).error < 1e-5
    check_edits(reader, images, monkeypatch)
    assert all(layer.fused_attn for layer in reader.layers)


@pytest.mark.parametrize("fields", [{"qk_norm": True}, {"scale_attn_norm": True}])
def test_timm_options_of_attention(fields, monkeypatch):
    reader = timm_reader("vit_tiny_patch16_224", **fields)
    images = images_of(reader)
    for found, own in zip(extracted(reader, images), fused(reader, images, monkeypatch), strict=True):
        torch.testing.assert_close(found, own, rtol=0, atol=1e-5)
    assert reader.verify(images) < 1e-5


@pytest.mark.parametrize("name", HF)
def test_hf_weights_are_its_output_attentions(name, monkeypatch):
    reader = hf_reader(name)
    assert (reader.grid, reader.prefix) == ((2, 2), HF[name][2])
    images = images_of(reader)
    found = extracted(reader, images)
    assert reader.model.config._attn_implementation == "sdpa"
    reader.model.set_attn_implementation("eager")
    with torch.no_grad():
        expected = reader.model(images, output_attentions=True).attentions
    reader.model.set_attn_implementation("sdpa")
    for mine, own in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, own, rtol=0, atol=1e-5)
        assert mine.std() > 1e-3
    assert stream_relative(reader, [images]).error < 1e-5
    check_edits(reader, images, monkeypatch)
    assert reader.model.config._attn_implementation == "sdpa"


def test_hf_grids_are_interpolated_or_refused():
    for name in set(HF) - {"beit"}:
        reader = hf_reader(name, grid=(3, 5))
        assert (reader.image_size, reader.trained_grid) == ((48, 80), (2, 2))
        assert stream_relative(reader, [images_of(reader)]).error < 1e-5
    oblong = hf_reader("vit", image_size=(32, 48))
    assert oblong.grid == (2, 3)
    assert oblong.verify(images_of(oblong)) < 1e-5
    with pytest.raises(ValueError, match="cannot be interpolated"):
        hf_reader("vit", image_size=(32, 48), grid=(3, 3))
    with pytest.raises(ValueError, match="positions for 2 x 2 patches alone"):
        hf_reader("beit", grid=(3, 3))
    with pytest.raises(ValueError, match="cannot be interpolated"):
        hf_reader("dinov2", image_size=(32, 128))  # transformers would read its 2 x 8 positions as 4 x 4


TEXT = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 9,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}  # fmt: skip


def mae():
    """A masked autoencoder whose decoder has as many layers as its encoder."""
    decoder = {"decoder_hidden_size": 32, "decoder_num_attention_heads": 2, "decoder_num_hidden_layers": 2,
               "decoder_intermediate_size": 32}  # fmt: skip
    return randomised(ViTMAEForPreTraining(ViTMAEConfig(**TINY, image_size=32, patch_size=16, **decoder)))


def whole(name):
    """A model that reads text too, or has a projection."""
    vision = {**TINY, "image_size": 32, "patch_size": 16}
    if name == "projection":
        return randomised(CLIPVisionModelWithProjection(CLIPVisionConfig(**vision, projection_dim=8)))
    config, model = {"clip": (CLIPConfig, CLIPModel), "siglip": (SiglipConfig, SiglipModel)}[name]
    return randomised(model(config(vision_config=vision, text_config=TEXT)))


@torch.no_grad()
@pytest.mark.parametrize("name", ["clip", "siglip", "projection", "mae"])
def test_the_half_that_sees_is_read_in_memory_and_from_a_folder(name, tmp_path):
    model = mae() if name == "mae" else whole(name)
    held = as_reader(model)
    images = images_of(held)
    assert (len(held.layers), held.grid) == (2, (2, 2))
    assert held.verify(images) < 1e-5
    assert can_resume(held, images)
    if name != "mae":
        tower = model.vision_model(pixel_values=images)
        torch.testing.assert_close(held.features(images), tower.pooler_output)
        torch.testing.assert_close(held.logits(images), tower.last_hidden_state)
    model.save_pretrained(tmp_path)
    read = open_source(f"hf:{tmp_path}")
    torch.testing.assert_close(read.features(images), held.features(images), rtol=1e-4, atol=1e-4)
    drawn = open_source(f"hf:{tmp_path}", pretrained=False)
    assert drawn.verify(images) < 1e-5
    assert (drawn.features(images) - held.features(images)).abs().max() > 1e-2


def test_a_classifier_on_clip_is_refused_and_not_left_out(tmp_path):
    vision = {**TINY, "image_size": 32, "patch_size": 16}
    model = CLIPForImageClassification(CLIPConfig(vision_config=vision, text_config=TEXT, num_labels=3))
    with pytest.raises(ValueError, match="save its vision model"):
        as_reader(model)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="save its vision model"):
        open_source(f"hf:{tmp_path}")


@torch.no_grad()
def test_a_masked_autoencoder_sees_every_patch_in_its_place():
    model = mae()
    reader = as_reader(model)
    images = images_of(reader)
    seen = {}
    with entering(reader, seen.__setitem__):
        first = reader.logits(images)
    embeddings = model.vit.embeddings
    expected = embeddings.patch_embeddings(images) + embeddings.position_embeddings[:, 1:]
    torch.testing.assert_close(seen[0][:, 1:], expected)
    torch.testing.assert_close(reader.logits(images), first, rtol=0, atol=0)
    assert model.config.mask_ratio == 0.75


def test_torchvision_weights_by_head(monkeypatch):
    reader = torchvision_reader()
    images = images_of(reader)
    inputs = []
    handles = [layer.register_forward_pre_hook(lambda _m, args: inputs.append(args[0])) for layer in reader.layers]
    found = extracted(reader, images)
    for handle in handles:
        handle.remove()
    for layer, x, mine in zip(reader.layers, inputs, found, strict=True):
        _, own = layer(x, x, x, need_weights=True, average_attn_weights=False)
        torch.testing.assert_close(mine, own, rtol=0, atol=1e-5)
        query, key = F.linear(x, layer.in_proj_weight, layer.in_proj_bias).chunk(3, -1)[:2]
        heads = [part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (query, key)]
        by_hand = (heads[0] @ heads[1].mT / 8**0.5).softmax(-1)
        torch.testing.assert_close(mine, by_hand, rtol=0, atol=1e-5)
    assert mine.shape == (3, 2, 5, 5)
    assert stream_relative(reader, [images]).error < 1e-5, "against PyTorch's fast path"
    monkeypatch.setattr(torch.backends.mha, "_is_fastpath_enabled", False)
    check_edits(reader, images, monkeypatch)


def test_attention_that_stays_fused_is_an_error():
    reader = timm_reader("vit_tiny_patch16_224")
    layer = reader.layers[1]

    def stubborn(x, attn_mask=None, is_causal=False):
        query, key, value = layer.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return layer.proj(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    layer.forward = stubborn
    with pytest.raises(RuntimeError, match="layer 1 never came by"):
        stream_relative(reader, [images_of(reader)])
    reader = hf_reader("vit")
    forward = reader.layers[0].forward
    reader.layers[0].forward = lambda *args, **kwargs: (forward(*args, **kwargs)[0], None)
    with pytest.raises(RuntimeError, match="layer 0 never came by"):
        stream_relative(reader, [images_of(reader)])


def test_a_wrong_prefix_is_found_out():
    model = timm_reader("vit_tiny_patch16_224").model
    reader = TimmReader(model, "vit", prefix=0)
    with pytest.raises(RuntimeError, match="give `grid` and `prefix`"):
        reader.verify(images_of(reader))


def test_unsupported_models_are_told_what_was_looked_for():
    tiny = {"img_size": 32, "window_size": 2, "embed_dim": 16, "depths": (1,), "num_heads": (2,)}
    swin = timm.create_model("swin_tiny_patch4_window7_224", **tiny)
    with pytest.raises(ValueError, match=r"looked for one of .*RelPosAttention.*swin_transformer\.WindowAttention"):
        TimmReader(swin, "swin")
    with pytest.raises(ValueError, match=r"looked for torchvision's VisionTransformer, found Linear"):
        TorchvisionReader(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"looked for a transformers model of type vit, deit.*found type Linear"):
        HFReader(torch.nn.Linear(2, 2))
