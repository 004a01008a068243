"""Locality metrics on heads with known answers, their baselines, controls and intervals, and the command."""

import json
import math

import numpy as np
import pytest
import torch

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import load_data
from aft_lens.models import create_model
from analyses.bias import position_bias_maps
from analyses.locality.metrics import METRICS, SCALARS, head_locality, layer_means, measure
from analyses.maps.frame import framed, mean_distance, offsets
from analyses.offset_maps import OffsetMaps, bias_offsets, read_offset_maps, redraw
from app.cli import main

DATA = load_data("digits")


def small(name, **fields):
    torch.manual_seed(0)
    return create_model(name, depth=2, embed_dim=16, num_heads=2 if "full" not in name else 1, **fields).eval()


def saved(folder, name, **fields):
    model = small(name, **fields)
    return save_checkpoint(folder / name, model, data=DATA.record(), recipe={}, seed=0, metrics=[])


def vit_maps(excess, grid, resampled=None):
    return OffsetMaps("vit", "attention", excess, grid, (16.0, 16.0), resampled, images=9, beyond=-1.0)


def test_a_shift_reads_one_offset():
    shift = np.zeros((1, 1, 7, 9))
    shift[0, 0, 3 - 3, 4 + 4] = 2.0
    found = measure(shift, patch=(2.0, 3.0), radius=4.9)
    assert found["distance"][0, 0] == pytest.approx(5.0)
    assert found["distance_pixels"][0, 0] == pytest.approx(math.hypot(6, 12))
    assert (found["peak_y"][0, 0], found["peak_x"][0, 0]) == (-3, 4)
    assert found["entropy"][0, 0] == 0
    assert found["effective"][0, 0] == 1
    assert found["near"][0, 0] == 0
    assert measure(shift, radius=5.0)["near"][0, 0] == 1
    assert found["symmetry"][0, 0] == pytest.approx(-1 / 61)
    both = shift + shift[..., ::-1, ::-1]
    assert measure(both)["symmetry"][0, 0] == pytest.approx(1.0)
    assert measure(both)["effective"][0, 0] == pytest.approx(2.0)


def test_frames_keep_their_middle():
    point = np.zeros((2, 7, 7))
    point[0, 3, 5] = 4.0
    assert np.array_equal(mean_distance(point), [2.0, np.nan], equal_nan=True)
    assert framed(point, (3, 3)).sum() == 0
    assert framed(point, (5, 5))[0, 2, 4] == 4.0
    assert framed(point, (9, 9), -1.0)[0, 4, 6] == 4.0
    assert framed(point, (9, 5), -1.0)[0, 0, 0] == -1.0


def test_a_uniform_head_is_the_baseline():
    found = measure(np.full((5, 5), 0.3))
    y, x = offsets((5, 5))
    assert found["distance"] == pytest.approx(np.hypot(y, x).mean())
    assert found["relative"] == pytest.approx(1.0)
    assert found["entropy"] == pytest.approx(math.log(25))
    assert found["effective"] == pytest.approx(25)
    assert found["near"] == pytest.approx(9 / 25)
    assert np.isnan(found["symmetry"])


def test_a_gaussian_head():
    y, x = offsets((41, 41))
    sigma = 2.5
    gauss = np.exp(-(y**2 + x**2) / (2 * sigma**2))
    found = measure(gauss, radius=sigma)
    assert found["distance"] == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=5e-3)  # Rayleigh; a grid rounds it
    assert found["entropy"] == pytest.approx(1 + math.log(2 * math.pi * sigma**2), rel=1e-6)
    assert found["near"] == pytest.approx(1 - math.exp(-0.5), abs=0.03)  # a disc of few squares
    assert found["symmetry"] == pytest.approx(1)
    turned = measure(gauss * (x > 0))
    assert turned["symmetry"] < 0
    assert turned["distance"] == pytest.approx(found["distance"], rel=0.3)


def test_heads_without_mass_are_undefined_and_nonsense_is_refused():
    assert all(np.isnan(value).all() for value in measure(np.zeros((2, 3, 3))).values())
    assert np.array_equal(layer_means(np.array([[np.nan, 1.0], [np.nan, np.nan]])), [1.0, np.nan], equal_nan=True)
    with pytest.raises(ValueError, match="not negative"):
        measure(-np.ones((3, 3)))
    with pytest.raises(ValueError, match="odd sides"):
        measure(np.ones((4, 3)))
    with pytest.raises(ValueError, match="radius"):
        measure(np.ones((3, 3)), radius=-1)
    with pytest.raises(ValueError, match="odd"):
        framed(np.ones((3, 3)), (4, 4))


def test_border_correction_and_plain_average():
    flat = vit_maps(np.zeros((1, 1, 3, 5)), (2, 3))
    corrected, plain = head_locality(flat), head_locality(flat, plain=True)
    assert corrected.values["effective"][0, 0] == pytest.approx(15)
    grid = np.stack(np.meshgrid([0, 1], [0, 1, 2], indexing="ij"), -1).reshape(-1, 2)
    pairs = np.hypot(*(grid[:, None] - grid[None]).reshape(-1, 2).T)
    assert plain.values["distance"][0, 0] == pytest.approx(pairs.mean())
    for found in (corrected, plain):
        assert all(found.values[key][0, 0] == pytest.approx(found.uniform[key], nan_ok=True) for key in SCALARS)


def test_the_remainder_is_apart_or_included():
    w = np.zeros((1, 1, 3, 3))
    w[0, 0, 0, 1] = math.log(3)
    maps = OffsetMaps("conv", "bias", np.expm1(w), (4, 4), (1.0, 1.0))
    apart = head_locality(maps)
    assert apart.values["effective"][0, 0] == pytest.approx(1)
    assert apart.remainder_share[0, 0] == pytest.approx(16 / 18)
    included = head_locality(maps, remainder="included")
    assert included.frame == (7, 7)
    mass = np.ones((7, 7))
    mass[2, 3] = 3
    assert included.values["distance"][0, 0] == pytest.approx(measure(mass)["distance"])
    assert included.uniform["effective"] == pytest.approx(49)
    alone = OffsetMaps("conv", "bias", np.expm1(w), (4, 4), (1.0, 1.0), beyond=-1.0)
    assert head_locality(alone, remainder="included").uniform["effective"] == pytest.approx(9)
    assert head_locality(maps, window=1).frame == (1, 1)


def test_intervals_cover_the_images():
    generator = np.random.default_rng(0)
    base = generator.random((2, 3, 5, 5))
    resampled = base + 0.05 * generator.random((40, 2, 3, 5, 5))
    found = head_locality(vit_maps(base, (3, 3), resampled))
    low, high = found.interval["distance"]
    assert low.shape == (2, 3)
    assert (low < high).all()
    low, high = found.layer_interval["entropy"]
    assert ((low < found.values["entropy"].mean(1) + 0.02) & (high > found.values["entropy"].mean(1) - 0.02)).all()
    assert ((found.peak_kept > 0) & (found.peak_kept <= 1)).all()
    one = head_locality(vit_maps(base, (3, 3), np.stack([base, base])))
    assert np.allclose(one.interval["distance"], one.values["distance"])
    assert (one.peak_kept == 1).all()


@pytest.mark.parametrize("fields", [{}, {"position_bias": "single"}, {"position_bias": "free"}, {"keep": (2, 2)}])
def test_the_control_forgets_places_and_repeats(fields):
    model, again = small("aft_conv_digits", **fields), small("aft_conv_digits", **fields)
    for one in (model, again):
        with torch.no_grad():
            for name, weight in one.named_parameters():
                if name.endswith("gamma") or ("keep" in fields and name.endswith("position_bias.weight")):
                    weight.fill_(0.7)
    before = position_bias_maps(model).maps
    redraw(model, 3)
    redraw(again, 3)
    after = position_bias_maps(model).maps
    assert np.array_equal(after, position_bias_maps(again).maps)
    assert not np.allclose(before, after)
    if "keep" in fields:
        assert ((after > 0).sum((2, 3)) == 2).all()
    elif "position_bias" not in fields:
        assert np.log1p(after).std((2, 3)) == pytest.approx(np.log1p(before).std((2, 3)), rel=1e-3)


def test_full_is_averaged_by_offset():
    model = small("aft_full_digits")
    maps = bias_offsets(model, "full")
    assert maps.excess.shape == (2, 1, 15, 15)
    w = model.blocks[0].mixer.position_bias()[1:, 1:].detach().reshape(8, 8, 8, 8)
    assert maps.excess[0, 0, 0, 0] == pytest.approx(float(torch.expm1(w[7, 7, 0, 0])), rel=1e-4)
    with pytest.raises(ValueError, match="no position biases"):
        bias_offsets(small("vit_digits"), "vit")


def test_the_command_measures_every_kind(tmp_path, capsys, monkeypatch):
    vit, conv = saved(tmp_path, "vit_digits"), saved(tmp_path, "aft_conv_digits", position_bias="single")
    out = tmp_path / "out"
    line = ["locality", str(vit), str(conv), "--images", "8", "--resamples", "5", "--definitions", "--out", str(out)]
    assert main(line) == 0
    printed = capsys.readouterr().out
    assert printed.index("means over all heads") < printed.index("frame 15 x 15") < printed.index("scaled to sum 1")
    for metric in METRICS:
        assert f"{metric.name} ({metric.unit}): {metric.definition}" in printed
    record = json.loads((out / "locality.json").read_text())
    assert [source["control"] for source in record["sources"]] == [False, True, False, True]
    assert record["sources"][0]["interval"]["distance"][0][0][0] > 0
    assert record["sources"][2]["interval"] is None
    assert record["sources"][2]["frame"] == [7, 7]
    assert record["command"].startswith(f"aft-lens locality {vit} {conv} --images 8")
    for kind in ("png", "svg", "html"):
        assert (out / f"locality.{kind}").stat().st_size > 500
    monkeypatch.chdir(tmp_path)
    assert main(["locality", str(conv), "--pretrained", "false", "--heads", "true"]) == 0
    record = json.loads((tmp_path / "reports/locality-random/locality.json").read_text())
    assert [source["control"] for source in record["sources"]] == [True]
    assert "head" in capsys.readouterr().out
    assert main(["locality", str(tmp_path / "none"), "--out", str(out)]) == 2


def test_intervals_come_from_the_images(tmp_path):
    maps = read_offset_maps(str(saved(tmp_path, "vit_digits")), images=8, resamples=6)
    assert maps.resampled.shape == (6, 2, 2, 15, 15)
    found = head_locality(maps)
    assert (found.interval["entropy"][0] < found.interval["entropy"][1]).all()
    with pytest.raises(ValueError, match="images"):
        read_offset_maps(str(tmp_path / "vit_digits"), images=0)
