"""AFT-conv from a ViT: what is taken from each library, biases from relative attention, and sizes."""

import math
from dataclasses import replace

import pytest
import timm
import torch
import transformers
from torchvision.models import VisionTransformer

from aft_lens.extraction import targets_per_offset, unfold_offsets
from aft_lens.layers.position_embedding import resample_positions
from aft_lens.models import VisionModel, create_model, model_config
from aft_lens.models.transfer import from_vit, start_from_relative
from aft_lens.ops import aft_conv

TARGET = model_config(
    "aft_conv_tiny_11_32", img_size=32, embed_dim=24, depth=2, num_heads=12, window_size=3, num_classes=5, mlp_ratio=2.0
)
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 48, "image_size": 32,
         "num_labels": 5}  # fmt: skip


def timm_vit(name="vit_tiny_patch16_224", **fields):
    fields = {"depth": 2, "embed_dim": 24, "num_heads": 3, "img_size": 32, "num_classes": 5, "mlp_ratio": 2} | fields
    return timm.create_model(name, **fields)


def sources():
    """A small ViT of each library with its second block's value, output and MLP weights as it names them."""
    block, layer = "blocks.1.", "layers.1."
    own = create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=2, num_classes=5, mlp_ratio=2.0)
    yield "own", own, [block + "mixer.qkv", block + "mixer.proj", block + "mlp.3", "stem", "head"]
    for name in ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224"):
        parts = [block + "attn.qkv", block + "attn.proj", block + "mlp.fc2", "patch_embed.proj", "head"]
        yield name, timm_vit(name), parts
    torchvision = VisionTransformer(32, 16, 2, 3, 24, 48, num_classes=5)
    block = "encoder.layers.encoder_layer_1."
    parts = [block + "self_attention.in_proj_", block + "self_attention.out_proj", block + "mlp.3"]
    yield "torchvision", torchvision, [*parts, "conv_proj", "heads.head"]
    for kind, prefix in (("ViT", "vit." + layer), ("DeiT", "deit." + layer), ("Dinov2", "dinov2.encoder.layer.1.")):
        config = getattr(transformers, f"{kind}Config")(**SMALL, patch_size=16, mlp_ratio=2)
        stem = prefix.split(".")[0] + ".embeddings.patch_embeddings.projection"
        parts = [prefix + part for part in ("attention.v_proj", "attention.o_proj", "mlp.fc2")]
        yield kind, getattr(transformers, f"{kind}ForImageClassification")(config), [*parts, stem, "classifier"]


@pytest.mark.parametrize(("name", "vit", "parts"), [pytest.param(*case, id=case[0]) for case in sources()])
def test_an_aft_conv_takes_every_librarys_weights_but_query_key_and_embeddings(name, vit, parts):
    for tensor in vit.state_dict().values():
        if tensor.is_floating_point():
            torch.nn.init.normal_(tensor, std=0.2)
    result = from_vit(vit, TARGET)
    own, given = result.model.state_dict(), vit.state_dict()
    mlp_scale = next((t for n, t in given.items() if "1.ls2" in n or "1.layer_scale2" in n), torch.ones(24))
    mixer_scale = next((t for n, t in given.items() if "1.ls1" in n or "1.layer_scale1" in n), torch.ones(24))
    ours = ("blocks.1.mixer.value", "blocks.1.mixer.proj", "blocks.1.mlp.3", "stem", "head")
    for mine, theirs, scale in zip(ours, parts, (None, mixer_scale, mlp_scale, None, None)):
        if mine == "head" and name == "Dinov2":
            assert "(5, 48)" in result.fresh["head.weight"], "its classifier reads two vectors"
            continue
        for kind in ("weight", "bias"):
            expected = given[theirs + kind if theirs.endswith("_") else f"{theirs}.{kind}"]
            expected = expected[48:] if mine.endswith("value") and len(expected) == 72 else expected
            expected = expected if scale is None else expected * scale.reshape(-1, *[1] * (expected.ndim - 1))
            torch.testing.assert_close(own[f"{mine}.{kind}"], expected)
    fresh = {name.split(".")[3] for name in result.fresh if ".mixer." in name}
    assert fresh == {"query", "key", "position_bias"}
    assert set(own) == set(result.taken) | set(result.fresh)
    used = {source for origins in result.taken.values() for source in origins}
    assert set(given) == used | set(result.left)
    assert any("cls_token" in tensor or "class_token" in tensor for tensor in result.left)
    assert result.model(torch.randn(2, 3, 48, 32)).isfinite().all()


def test_a_block_without_its_mixer_computes_what_the_vits_does():
    vit, image = timm_vit("deit3_small_patch16_224").eval(), torch.randn(2, 3, 32, 32)
    for layer in vit.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.LayerNorm) or hasattr(layer, "gamma"):
            for parameter in layer.parameters(recurse=False):
                torch.nn.init.normal_(parameter, std=0.3)
    model = from_vit(vit, TARGET).model.eval()
    with torch.no_grad():
        x = vit.patch_embed(image)
        torch.testing.assert_close(model.stem(image).flatten(2).transpose(1, 2), x)
        mine, theirs = model.blocks[0], vit.blocks[0]
        expected = theirs.ls2(theirs.mlp(theirs.norm2(x)))
        torch.testing.assert_close(mine.mlp(mine.norm2(x)), expected)
        torch.testing.assert_close(mine.mixer.proj(x), theirs.ls1(theirs.attn.proj(x)))


def test_other_classes_leave_the_head_fresh_and_other_shapes_are_refused():
    vit = timm_vit()
    result = from_vit(vit, replace(TARGET, num_classes=7))
    assert result.fresh["head.bias"] == "expected (7,), the ViT's has (5,)"
    assert set(result.left) >= {"head.weight", "head.bias", "pos_embed", "cls_token"}
    with pytest.raises(ValueError, match="give --depth 2"):
        from_vit(vit, replace(TARGET, depth=3))
    with pytest.raises(ValueError, match=r"stem.weight: expected \(48, 3, 16, 16\), .*patch_embed.proj.weight gives"):
        from_vit(vit, replace(TARGET, embed_dim=48))
    with pytest.raises(ValueError, match=r"mlp\.0\.weight"):
        from_vit(vit, replace(TARGET, mlp_ratio=3.0))
    with pytest.raises(ValueError, match=r"norm.weight: expected \(24,\), the ViT has none"):
        from_vit({n: t for n, t in vit.state_dict().items() if not n.startswith("norm.")}, TARGET)
    with pytest.raises(ValueError, match="aft_conv alone"):
        from_vit(vit, replace(TARGET, mixer="aft_full"))
    with pytest.raises(ValueError, match="no blocks under the names"):
        from_vit(torch.nn.Linear(2, 2), TARGET)


@pytest.mark.parametrize("kind", ["free", "reparameterized", "single"])
def test_biases_reproduce_maps_that_they_can_make(kind):
    """Maps made from known biases come back as those biases, each ViT head in the AFT heads of its channels."""
    torch.manual_seed(0)
    config = replace(TARGET, position_bias=kind, num_heads=6)
    model = VisionModel(config)
    w = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    maps = torch.ones(2, 3, 7, 9, dtype=torch.float64)
    maps[:, :, 2:5, 3:6] = w.exp()
    start_from_relative(model, maps * 0.01, targets_per_offset((4, 5)))
    for block, expected in zip(model.blocks, w):
        bias = block.mixer.position_bias
        found = bias.inner() if kind == "single" else bias()
        torch.testing.assert_close(found, expected.repeat_interleave(2, 0).float(), rtol=1e-5, atol=1e-5)


def test_a_head_over_two_vit_heads_takes_their_mean_by_channels():
    config = replace(TARGET, position_bias="free", num_heads=4)
    model = VisionModel(config)
    maps = torch.ones(2, 3, 7, 7, dtype=torch.float64)
    maps[:, :, 3, 3] = torch.tensor([2.0, 4.0, 8.0])
    start_from_relative(model, maps, targets_per_offset((4, 4)))
    peak = model.blocks[0].mixer.position_bias()[:, 1, 1].exp()
    torch.testing.assert_close(peak, torch.tensor([2, (2 + 2 * 4) / 3, (2 * 4 + 8) / 3, 8]))


def test_the_bias_minimises_divergence_on_a_torus():
    """Offsets have one target count: no change of w brings the AFT's weights closer to the map."""
    m = torch.rand(1, 1, 7, 7, dtype=torch.float64)
    m /= m.sum()
    model = VisionModel(replace(TARGET, position_bias="free", depth=1, num_heads=1))
    start_from_relative(model, m, torch.ones(7, 7))
    w = model.blocks[0].mixer.position_bias().detach().double().requires_grad_()
    weight = torch.nn.functional.pad(w[0], (2, 2, 2, 2)).exp()
    divergence = (m[0, 0] * (m[0, 0] / (weight / weight.sum())).log()).sum()
    (gradient,) = torch.autograd.grad(divergence, w)
    assert gradient.abs().max() < 1e-7


def test_a_window_over_every_offset_and_a_flat_map():
    model = VisionModel(replace(TARGET, window_size=9))
    maps = torch.full((2, 3, 5, 5), 0.1, dtype=torch.float64)
    maps[0, :, 2, 2] = 0.3
    before = model.blocks[1].mixer.position_bias.weight.clone()
    start_from_relative(model, maps, targets_per_offset((3, 3)))
    w = model.blocks[0].mixer.position_bias().detach()
    assert w[0, 4, 4] - w[0, 3, 4] == pytest.approx(math.log(3), rel=1e-5)
    assert w[0, 0].abs().max() < 1e-5, "offsets that the grid does not have"
    flat = model.blocks[1].mixer.position_bias
    assert torch.equal(flat.weight, before), "a direction to grow in"
    torch.testing.assert_close(flat(), torch.zeros(12, 9, 9))
    with pytest.raises(ValueError, match="for each of 2 blocks, got 1"):
        start_from_relative(model, maps[:1], targets_per_offset((3, 3)))
    indexed = VisionModel(replace(TARGET, keep=(1, 1)))
    with pytest.raises(ValueError, match="Indexed cannot take"):
        start_from_relative(indexed, maps, targets_per_offset((3, 3)))


def test_an_aft_with_constant_keys_attends_like_the_map():
    """With K = 0 the weights of Eq. 6, read off by one-hot values, are the map's by target inside the window."""
    grid, side = (5, 5), 5
    maps = torch.full((1, 1, 9, 9), 0.01, dtype=torch.float64)
    maps[..., 2:7, 2:7] = torch.rand(5, 5, dtype=torch.float64)
    model = VisionModel(replace(TARGET, window_size=side, depth=1, num_heads=1, position_bias="free"))
    start_from_relative(model, maps, targets_per_offset(grid))
    expected = unfold_offsets(maps[0, 0], grid)
    expected = expected / expected.sum(-1, keepdim=True)
    value = torch.eye(25, dtype=torch.float64).reshape(1, 1, 25, *grid)
    bias = model.blocks[0].mixer.position_bias().detach().double()
    found = aft_conv(None, torch.zeros(1, 1, *grid, dtype=torch.float64), value, bias).reshape(25, 25).T
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def test_position_embeddings_are_interpolated_as_timm_does():
    torch.manual_seed(0)
    embedding = torch.randn(1, 1 + 7 * 7, 6)
    assert resample_positions(embedding, (7, 7), (7, 7)) is embedding
    found = resample_positions(embedding, (7, 7), (12, 5))
    expected = timm.layers.resample_abs_pos_embed(embedding, [12, 5], [7, 7], num_prefix_tokens=1)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found[:, 0], embedding[:, 0])
    with pytest.raises(ValueError, match="1 \\+ 6 x 6 positions, got 50"):
        resample_positions(embedding, (6, 6), (7, 7))


def test_a_vit_takes_other_sizes_and_aft_full_does_not():
    model = create_model("vit_digits", depth=1).eval()
    image = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        model.pos_embed[:, 1:] = 0.5
        larger = torch.nn.functional.pad(image, (0, 3, 0, 1))
        assert model(larger).shape == (2, 10)
        wide = create_model("vit_digits", depth=1, img_size=12).eval()
        wide.load_state_dict(model.state_dict() | {"pos_embed": resample_positions(model.pos_embed, (8, 8), (12, 12))})
        torch.testing.assert_close(model(torch.ones(1, 1, 12, 12)), wide(torch.ones(1, 1, 12, 12)))
    model(larger).sum().backward()
    assert model.pos_embed.grad.abs().min() > 0, "the embeddings still train"
    with pytest.raises(ValueError, match="image must be 8 x 8 for aft_full"):
        create_model("aft_full_digits")(larger)
