"""Bias, attention and key maps: values, files, and errors that say what fits."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import load_data
from aft_lens.extraction import as_reader
from aft_lens.models import create_model
from analyses import attention, bias, keys
from analyses.command import report_folder

DATA = load_data("digits")
KINDS = ["png", "svg", "html", "json"]


def small(name, **fields):
    torch.manual_seed(0)
    return create_model(name, depth=2, embed_dim=16, num_heads=2 if "full" not in name else 1, **fields).eval()


def test_bias_maps_are_expm1_of_w():
    model = small("aft_conv_digits", position_bias="free")
    with torch.no_grad():
        model.blocks[0].mixer.position_bias.weight.zero_()
        model.blocks[0].mixer.position_bias.weight[0, 3, 5] = 30.0
    result = bias.position_bias_maps(model)
    assert result.maps.shape == (2, 2, 7, 7)
    assert result.maps[0, 0, 3, 5] == pytest.approx(math.expm1(30.0), rel=1e-6)
    assert result.mean_distance[0, 0] == pytest.approx(2.0)
    assert result.entropy[0, 0] < 1e-6
    assert result.entropy[0, 1] == pytest.approx(math.log(49))
    assert np.isnan(result.mean_distance[0, 1])


@pytest.mark.parametrize("fields", [{}, {"position_bias": "single"}, {"keep": (1, 1)}])
def test_bias_maps_of_every_parametrization(fields):
    result = bias.position_bias_maps(small("aft_conv_digits", **fields))
    assert result.maps.shape == (2, 2, 7, 7)
    assert np.isfinite(result.maps).all()


def test_full_is_drawn_by_target():
    model = small("aft_full_digits")
    result = bias.position_bias_maps(model)
    assert result.kind == "target"
    assert result.maps.shape == (2, 9, 8, 8)
    w = model.blocks[0].mixer.position_bias
    dense = (w.target @ w.source.T)[1, 1:].reshape(8, 8).detach()
    assert np.allclose(result.maps[0, 0], torch.expm1(dense), atol=1e-6)


def test_vit_has_no_bias_and_conv_no_attention():
    with pytest.raises(ValueError, match="aft-lens attention"):
        bias.position_bias_maps(small("vit_digits"))
    with pytest.raises(ValueError, match="aft-lens bias"):
        attention.attention_maps(small("aft_conv_digits"), [torch.zeros(1, 1, 8, 8)])
    with pytest.raises(ValueError, match="AFT-conv"):
        keys.key_maps(small("vit_digits"), torch.zeros(1, 8, 8))


def test_attention_distance_is_over_targets_and_the_same_for_either_average():
    torch.manual_seed(0)
    model, images = small("vit_digits"), torch.randn(5, 1, 8, 8)
    for block in model.blocks:
        torch.nn.init.normal_(block.mixer.qkv.weight)
    found = [attention.attention_maps(model, [images], border_corrected=corrected) for corrected in (True, False)]
    weights, reader = {}, as_reader(model)
    with torch.no_grad(), reader.exposed(weights.__setitem__):
        reader.logits(images)
    place = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))
    pairs = torch.stack([weights[layer][:, :, 1:, 1:].sum(0) for layer in range(2)])
    expected = (pairs * torch.cdist(place, place)).sum((2, 3)) / pairs.sum((2, 3))
    for result in found:
        np.testing.assert_allclose(result.mean_distance, expected.numpy(), rtol=1e-5)
    assert found[0].uniform_distance == pytest.approx(float(torch.cdist(place, place).mean()))


def test_attention_of_every_target_sums_to_one():
    model = small("vit_digits")
    result = attention.attention_maps(model, [torch.randn(5, 1, 8, 8)], border_corrected=False)
    assert result.maps.shape == (2, 2, 15, 15)
    assert result.images == 5
    total = result.maps.sum((2, 3))
    assert ((total > 0.8) & (total < 1)).all()
    assert np.allclose(result.excess, result.maps * 64 - 1)


def test_keys_and_attribution_complete():
    model = small("aft_conv_digits")
    image = DATA.test[0][0]
    result = keys.key_maps(model, image)
    assert result.maps.shape == (2, 2, 8, 8)
    assert result.probabilities.sum() == pytest.approx(1, abs=1e-5)
    with torch.no_grad():
        change = model(image[None])[0, result.prediction] - model(torch.zeros_like(image)[None])[0, result.prediction]
    assert result.attribution.sum() == pytest.approx(float(change), abs=0.05 * abs(float(change)) + 1e-3)
    assert not model.training


def test_reports_of_pruned_models_and_variants_have_names_of_their_own(tmp_path):
    (tmp_path / "cut" / "model").mkdir(parents=True)
    assert report_folder(tmp_path / "cut" / "model") == Path("reports/cut")
    assert report_folder(tmp_path / "cut", "random") == Path("reports/cut-random")
    assert report_folder("hf:facebook/dinov2-base") == Path("reports/hf-facebook-dinov2-base")


@pytest.mark.parametrize(
    ("module", "name"), [(bias, "aft_conv_digits"), (keys, "aft_conv_digits"), (attention, "vit_digits")]
)
def test_commands_print_a_table_and_write_figures(module, name, tmp_path, capsys):
    model = small(name)
    path = save_checkpoint(tmp_path / "c", model, data=DATA.record(), recipe={}, seed=0, metrics=[])
    options = {"images": 8} if module is attention else {}
    module.command(path, out=tmp_path / "out", **options)
    printed = capsys.readouterr().out
    assert "layer" in printed
    stem = module.__name__.split(".")[-1]
    for kind in KINDS:
        assert (tmp_path / "out" / f"{stem}.{kind}").stat().st_size > 500
        assert f"{stem}.{kind}" in printed
    assert "cdn.plot.ly" not in (tmp_path / "out" / f"{stem}.html").read_text()[:2000]
    assert len(json.loads((tmp_path / "out" / f"{stem}.json").read_text())["maps"]) == 2
