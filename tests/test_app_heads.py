"""Which heads are drawn, and what of their maps is sent to the browser."""

import base64

import numpy as np
import pytest

from analyses.maps.head_maps import HeadMaps
from app.canvas import Pane, packed
from app.heads import MOST_ACROSS, MOST_TILES, chosen_heads, paired
from app.maps import Looks, numbers_of


def looks(layers=3, heads=8, idle=None):
    values = (
        np.random.default_rng(0).normal(size=(layers, heads, 5, 7)) * np.logspace(-3, 6, heads)[None, :, None, None]
    )
    maps = HeadMaps(values, "u", idle=idle)
    return Looks(maps, numbers_of(maps, np.abs(values)))


def test_whole_layers_are_rows_and_every_head_is_in_some_window():
    found = looks(heads=40)
    seen = set()
    for first in (0, 16, 32):
        window = chosen_heads(found, sort="place", show="all", first=first)
        assert window.by_layer
        assert len(window.tiles) <= 3 * MOST_ACROSS
        seen |= set(window.tiles)
    assert len(seen) == 120
    assert "32 to 39 of 40" in window.words


def test_heads_are_sorted_by_their_numbers():
    found = looks()
    strongest = chosen_heads(found, sort="strength", show="all", first=0).tiles
    values = [found.measures["strength"][tile] for tile in strongest]
    assert values == sorted(values, reverse=True)
    sharpest = chosen_heads(found, sort="entropy", show="all", first=0).tiles
    assert found.measures["entropy"][sharpest[0]] == found.measures["entropy"].min()
    cost = np.arange(24.0).reshape(3, 8)
    assert chosen_heads(found, sort="cost", show="all", first=0, cost=cost).tiles[0] == (2, 7)
    with pytest.raises(ValueError, match="measure every head on Knock-out first"):
        chosen_heads(found, sort="cost", show="all", first=0)
    large = chosen_heads(looks(4, 100), sort="strength", show="all", first=10**6)
    assert len(large.tiles) + large.first == large.total == 400
    assert large.step == MOST_TILES


def test_heads_that_do_nothing_are_left_out():
    idle = np.zeros((3, 8), bool)
    idle[1, 2] = True
    window = chosen_heads(looks(idle=idle), sort="place", show="active", first=0)
    assert (1, 2) not in window.tiles
    assert len(window.tiles) == 23
    assert not window.by_layer


def test_pairs_keep_their_places():
    window = chosen_heads(looks(), sort="place", show="all", first=0)
    own, mates = paired(window, [[0, 3, 1, 1, 0.9], [2, 0, 9, 9, 0.8]], (3, 4))
    assert own == [(0, 3)]
    assert mates == [(1, 1)]


def test_values_arrive_to_half_a_thousandth_of_each_maps_largest():
    found = looks()
    tiles = [(0, 0), (2, 7), (1, 3)]
    content = packed(Pane(found.maps, "model", tiles))
    halves = np.frombuffer(base64.b64decode(content["values"]), "<f2").reshape(3, 5, 7).astype(float)
    for tile, sent, peak in zip(tiles, halves, content["peaks"], strict=True):
        np.testing.assert_allclose(sent * peak, found.maps.values[tile], atol=5e-4 * peak, rtol=6e-4)
    assert packed(Pane(found.maps, "another title", tiles))["hash"] == content["hash"]
    assert packed(Pane(found.maps, "model", tiles[:2]))["hash"] != content["hash"]
    holes = HeadMaps(np.full((1, 1, 3, 3), np.nan), "u")
    assert np.isnan(np.frombuffer(base64.b64decode(packed(Pane(holes, "m", [(0, 0)]))["values"]), "<f2")).all()
