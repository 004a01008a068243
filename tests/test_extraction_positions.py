"""Relative-position tables and gated positions in the frame of relative attention."""

import json
import shlex

import numpy as np
import pytest
import timm
import torch

from aft_lens.extraction import open_positions, unfold_offsets
from aft_lens.extraction.adapters.timm_positions import position_maps
from aft_lens.extraction.positions import bias_map
from analyses.built_in_positions import built_in_positions
from analyses.provenance import commanded
from app.cli import main

TINY_SWIN = {"img_size": 32, "window_size": 4, "embed_dim": 16, "depths": (1, 2), "num_heads": (2, 4)}


def swin(name):
    torch.manual_seed(0)
    return timm.create_model(name, **TINY_SWIN).eval()


def test_swin_table_has_source_minus_target():
    model = swin("swin_tiny_patch4_window7_224")
    layer = model.layers[0].blocks[0].attn
    with torch.no_grad():
        layer.relative_position_bias_table.zero_()
        layer.relative_position_bias_table[layer.relative_position_index[0, 1], 1] = 1.0  # target (0, 0), source (0, 1)
        layer.relative_position_bias_table[layer.relative_position_index[8, 0], 0] = 2.0  # target (2, 0), source (0, 0)
    found = position_maps(model)[0]
    expected = torch.zeros(2, 7, 7)
    expected[1, 3, 4] = 1.0
    expected[0, 1, 3] = 2.0
    torch.testing.assert_close(found.maps, expected)
    assert (found.layer, found.kind, found.gate) == ("layers.0.blocks.0.attn", "bias", None)


def test_every_bias_written_out_is_the_librarys_own():
    model = swin("swin_tiny_patch4_window7_224")
    for found, block in zip(position_maps(model), [b for stage in model.layers for b in stage.blocks], strict=True):
        own = block.attn._get_rel_pos_bias()[0]
        torch.testing.assert_close(unfold_offsets(found.maps, block.attn.window_size), own, rtol=0, atol=1e-6)
    model = swin("swinv2_tiny_window8_256")
    layer, scores = model.layers[0].blocks[0].attn, []
    layer.softmax.register_forward_pre_hook(lambda _module, args: scores.append(args[0]))
    with torch.no_grad():
        layer.qkv.weight.zero_()  # no content: the scores are the positions alone
        layer(torch.randn(1, 16, 16))
    found = position_maps(model)[0]
    torch.testing.assert_close(unfold_offsets(found.maps, (4, 4)), scores[0][0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "layers"),
    [("vit_relpos_small_patch16_224", 2), ("vit_srelpos_small_patch16_224", 1), ("vit_relpos_base_patch16_cls_224", 2),
     ("beit_base_patch16_224", 2)],
)  # fmt: skip
def test_global_attention_on_an_oblong_grid(name, layers):
    fields = {"img_size": (48, 32), "embed_dim": 16, "depth": 2, "num_heads": 2}
    found = position_maps(timm.create_model(name, **fields).eval())
    assert [tuple(layer.maps.shape) for layer in found] == [(2, 5, 3)] * layers


def test_convit_looks_where_its_weights_point(tmp_path):
    fields = {"img_size": 80, "embed_dim": 8, "num_heads": 4, "depth": 2, "local_up_to_layer": 1, "num_classes": 3}
    model = timm.create_model("convit_tiny", **fields).eval()
    layer = model.blocks[0].attn
    with torch.no_grad():
        layer.pos_proj.bias.zero_()
        for head, (dy, dx) in enumerate([(0, 0), (1, -2), (-1, 1), (0, 2)]):  # -|offset - centre|^2 but for a constant
            layer.pos_proj.weight[head] = 3 * torch.tensor([2.0 * dx, 2.0 * dy, -1.0])
        layer.gating_param.copy_(torch.tensor([0.0, 2.0, -2.0, 0.0]))
    (found,) = position_maps(model)
    assert (found.kind, tuple(found.maps.shape)) == ("gated", (4, 9, 9))
    peaks = [divmod(int(head.argmax()), 9) for head in found.maps]
    assert [(y - 4, x - 4) for y, x in peaks] == [(0, 0), (1, -2), (-1, 1), (0, 2)]
    torch.testing.assert_close(found.gate, torch.tensor([0.5, 0.8808, 0.1192, 0.5]), rtol=0, atol=1e-4)
    (result,) = built_in_positions([found])
    result.save(tmp_path)
    assert json.loads((tmp_path / "positions.json").read_text())["gate"][0] == pytest.approx(found.gate.tolist(), 1e-5)
    seen = []
    layer.attn_drop.register_forward_hook(lambda _module, _args, output: seen.append(output))
    with torch.no_grad():
        layer.gating_param.fill_(50.0)  # positions alone
        layer(torch.randn(1, 25, 32))
    assert seen[0][0, 1, 12].reshape(5, 5).argmax() == 3 * 5 + 0  # target (2, 2) reads source (3, 0)


def test_a_bias_that_is_no_function_of_the_offset_is_an_error():
    with pytest.raises(RuntimeError, match="pairs with the same offset differs"):
        bias_map("x", torch.rand(1, 4, 4), (2, 2))


def test_models_without_positions_say_so():
    with pytest.raises(ValueError, match=r"looked for relative positions in .*GPSA.*; VisionTransformer has none"):
        open_positions("timm:vit_tiny_patch16_224", pretrained=False)
    with pytest.raises(ValueError, match="give timm:NAME"):
        open_positions("hf:microsoft/swin-tiny-patch4-window7-224")


def test_figures_by_stage(tmp_path):
    first, second = built_in_positions(position_maps(swin("swin_tiny_patch4_window7_224")), "swin")
    assert [len(group.layers) for group in (first, second)] == [1, 2]
    assert "layers.1.blocks.1.attn" in str(second)
    with commanded("aft-lens", "attention", "swin"):
        paths = second.save(tmp_path, "positions-1")
    assert {path.name for path in paths} == {f"positions-1.{kind}" for kind in ("json", "png", "svg", "html")}
    record = json.loads((tmp_path / "positions-1.json").read_text())
    assert record["layers"] == [f"layers.1.blocks.{i}.attn" for i in (0, 1)]
    assert record["command"] == "aft-lens attention swin"


def test_the_command_draws_positions(tmp_path, capsys):
    source = "timm:vit_srelpos_small_patch16_224"
    words = ["attention", source, "--positions", "--no-pretrained", "--grid", "[4, 3]", "--out", str(tmp_path)]
    assert main(words) == 0
    assert "shared_rel_pos" in capsys.readouterr().out
    record = json.loads((tmp_path / "positions.json").read_text())
    assert record["command"] == shlex.join(["aft-lens", *words])
    assert np.array(record["maps"]).shape == (1, 6, 7, 5)
