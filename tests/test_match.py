"""Matching heads: assignments, likenesses with known values, baselines that are calibrated, the atlas, the command."""

import json
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance_nd

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import load_data
from aft_lens.models import create_model
from analyses.assignment import assign, exchangeable
from analyses.maps.frame import offsets
from analyses.match.atlas import atlas
from analyses.match.figure import layer_counts
from analyses.match.heads import Heads, common_frame, shaped_heads
from analyses.match.likeness import MEASURES, likeness
from analyses.match.matching import NULLS, exchanged, match
from analyses.offset_maps import OffsetMaps
from app.cli import main

DATA = load_data("digits")


def blob(dy, dx, side=7, width=1.0):
    y, x = offsets((side, side))
    return 5 * np.exp(-((y - dy) ** 2 + (x - dx) ** 2) / (2 * width**2)) - 0.2


def heads(maps, label="a"):
    maps = np.asarray(maps, dtype=float)
    return Heads(label, tuple((0, i) for i in range(len(maps))), maps, (), (1, len(maps)), 1.0)


def random_heads(seed, count=6, side=7):
    """Smooth maps that have nothing to do with another seed's."""
    generator = np.random.default_rng(seed)
    return heads([blob(*generator.integers(-3, 4, 2), side) for _ in range(count)], str(seed))


def test_assignment_is_the_best_of_all():
    scores = np.random.default_rng(0).random((4, 5))
    rows, columns = assign(scores)
    best = max(sum(scores[i, j] for i, j in enumerate(order)) for order in permutations(range(5), 4))
    assert scores[rows, columns].sum() == pytest.approx(best)


def test_likeness_is_numpys_and_scipys():
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 5, 3)) * 2 - 0.9, generator.random((3, 5, 3)) * 2 - 0.9
    correlation = likeness(a, b, "correlation")
    assert correlation[1, 2] == pytest.approx(np.corrcoef(a[1].ravel(), b[2].ravel())[0, 1])
    places = np.stack([axis.ravel() for axis in offsets((5, 3))], 1)
    moved = likeness(a, b, "earth mover's distance")
    expected = wasserstein_distance_nd(places, places, 1 + a[1].ravel(), 1 + b[2].ravel())
    assert moved[1, 2] == pytest.approx(-expected, abs=1e-6)


def test_earth_movers_distance_of_a_shift_is_its_length():
    for side, reach in ((7, (3, 2)), (21, (9, 6))):  # the larger frame in bins of three
        point, shifted = np.full((2, 1, side, side), -1.0)
        point[0, side // 2, side // 2] = 9.0
        shifted[0, side // 2 + reach[0], side // 2 - reach[1]] = 4.0
        assert likeness(point, shifted, "earth mover's distance")[0, 0] == pytest.approx(-np.hypot(*reach))


@pytest.mark.parametrize("measure", MEASURES)
def test_matching_undoes_a_shuffle(measure):
    first = random_heads(0)
    order = [3, 1, 5, 0, 4, 2]
    found = match(first, heads(first.maps[order] * 0.5), measure, draws=20)
    assert len(found.pairs) == 6
    for i, j in found.pairs:
        assert np.allclose(first.maps[order[j]], first.maps[i])
    assert found.mean == pytest.approx(1.0 if measure == "correlation" else found.mean)
    assert {one.null: one.p_value for one in found.baselines} == {null: pytest.approx(1 / 21) for null in NULLS}
    scores = np.array(found.scores) * (1 if measure == "correlation" else -1)
    assert (np.diff(scores) <= 1e-12).all()


def test_unrelated_smooth_heads_are_not_alike_by_chance():
    p = [
        {one.null: one.p_value for one in match(random_heads(2 * i), random_heads(2 * i + 1), "correlation", draws=40,
                                                seed=i).baselines}["moves"]
        for i in range(20)
    ]  # fmt: skip
    assert np.mean(np.array(p) <= 0.1) <= 0.3
    assert np.mean(p) == pytest.approx(0.5, abs=0.25)


def test_a_shared_taste_for_distance_passes_moves_and_not_rings():
    first = heads([blob(0, 0, width=w) for w in (0.8, 1.2, 1.8, 2.5)])
    second = heads([blob(0, 0, width=w) for w in (0.9, 1.3, 1.9, 2.6)])
    p = {one.null: one.p_value for one in match(first, second, "correlation", draws=60).baselines}
    assert p["moves"] < 0.1
    assert p["rings"] == 1.0


@pytest.mark.parametrize("sides", [(5, 5), (3, 5)])
def test_nulls_exchange_offsets_alike_in_all_maps(sides):
    first = np.random.default_rng(0).random((2, *sides))
    maps = np.concatenate([first, first])
    generator = np.random.default_rng(1)
    for null in NULLS:
        drawn = [exchanged(maps, null, generator) for _ in range(5)]
        assert not all(np.array_equal(one, maps) for one in drawn)
        for one in drawn:
            assert one.shape == maps.shape
            assert np.array_equal(one[:2], one[2:])
            assert np.array_equal(np.sort(one[0].ravel()), np.sort(maps[0].ravel()))
    distance = np.hypot(*offsets(sides))[None]
    assert np.allclose(exchanged(distance, "rings", generator), distance)
    assert sum(map(len, exchangeable(sides, "places"))) == np.prod(sides)


def test_frames_are_cropped_or_padded_and_flat_heads_left_out():
    wide = np.stack([blob(0, 0, 9), blob(2, 1, 9)])[None]
    narrow = np.stack([np.zeros((5, 5)), blob(0, 1, 5)])[None]
    vit = OffsetMaps("vit", "attention", wide, (5, 5), (1.0, 1.0), beyond=-1.0)
    conv = OffsetMaps("conv", "bias", narrow, (5, 5), (1.0, 1.0))
    assert common_frame(vit, conv) == (5, 5)
    assert common_frame(vit, conv, "pad") == (9, 9)
    cropped, padded = shaped_heads(vit, (5, 5)), shaped_heads(conv, (9, 9))
    assert np.array_equal(cropped.maps[1], wide[0, 1, 2:7, 2:7])
    assert 0 < cropped.kept < 1
    assert padded.kept == pytest.approx(1)
    assert (padded.places, padded.flat) == (((0, 1),), ((0, 0),))
    assert padded.maps[0, 0, 0] == 0
    assert shaped_heads(vit, (11, 11)).maps[0, 0, 0] == -1
    with pytest.raises(ValueError, match="flat"):
        shaped_heads(OffsetMaps("c", "bias", narrow[:, :1], (5, 5), (1.0, 1.0)), (5, 5))


def test_nonsense_is_refused():
    some = random_heads(0)
    with pytest.raises(ValueError, match="measure"):
        match(some, some, "cosine")
    with pytest.raises(ValueError, match="draws"):
        match(some, some, "correlation", draws=0)
    with pytest.raises(ValueError, match="components"):
        atlas([some], components=7)
    with pytest.raises(ValueError, match="clusters"):
        atlas([some], components=2, clusters=6)


def test_the_atlas_finds_the_parts_and_the_kinds():
    kinds = [(0, 0), (3, 3), (-3, 0)]
    generator = np.random.default_rng(0)
    strength = generator.uniform(0.5, 1.5, (12, 1, 1))
    maps = np.stack([blob(*kinds[i % 3]) for i in range(12)]) * strength + 0.01 * generator.random((12, 7, 7))
    first, second = heads(maps[:6]), heads(maps[6:], "b")
    found = atlas([first, second], components=4)
    assert found.explained > 0.95
    assert all(np.allclose(loading.sum(1), 1) for loading in found.loadings)
    assert found.components.sum((1, 2)) == pytest.approx(np.ones(4))
    assert len(found.cluster_maps) == 3
    label = np.concatenate(found.clusters)
    assert all(len(set(label[kind::3])) == 1 for kind in range(3))
    assert found.silhouette > 0.8


def test_the_command_writes_pairs_and_atlas(tmp_path, capsys, monkeypatch):
    paths = []
    for name in ("vit_digits", "aft_conv_digits"):
        torch.manual_seed(0)
        model = create_model(name, depth=2, embed_dim=16, num_heads=4)
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if key.endswith("gamma"):
                    weight.fill_(0.5)
        paths.append(save_checkpoint(tmp_path / name, model, data=DATA.record(), recipe={}, seed=0, metrics=[]))
    out = tmp_path / "out"
    options = ["--images", "4", "--draws", "2", "--components", "2", "--out", str(out)]
    assert main(["match", *map(str, paths), *options]) == 0
    printed = capsys.readouterr().out
    assert "null rings" in printed
    record = json.loads((out / "match.json").read_text())
    assert record["frame"] == [7, 7]
    assert record["command"].startswith(f"aft-lens match {paths[0]} {paths[1]} --images 4")
    assert [one["measure"] for one in record["matchings"]] == list(MEASURES)
    assert len(record["matchings"][0]["pairs"]) == 8
    assert json.loads((out / "atlas.json").read_text())["models"][1]["label"] == "aft_conv_digits"
    for name in ("match", "atlas"):
        for kind in ("png", "svg", "html"):
            assert (out / f"{name}.{kind}").stat().st_size > 500
            assert f"{name}.{kind}" in printed
    monkeypatch.chdir(tmp_path)
    assert main(["match", *map(str, paths), *options[:-2], "--no-pretrained"]) == 0
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["match-random"]
    drawn = json.loads((tmp_path / "reports/match-random/match.json").read_text())
    assert drawn["matchings"][0]["pairs"] != record["matchings"][0]["pairs"]


def test_layers_of_the_pairs_are_counted():
    first, second = random_heads(0), random_heads(1)
    assert layer_counts(first, second, match(first, second, "correlation", draws=1)).tolist() == [[6]]
