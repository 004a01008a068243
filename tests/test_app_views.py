"""The app's figures: values land in the right cells, colours have zero in the middle, frames are shared."""

import numpy as np
import pytest

from analyses.maps.head_maps import HeadMaps, shared_bound, shared_frame
from analyses.maps.mosaic import CLICK_POINTS, Cell, answering, cell_text, enlarged, mosaic
from app.views import locality, offsets, training


@pytest.fixture
def maps():
    values = np.random.default_rng(0).normal(size=(3, 4, 5, 7))
    return HeadMaps(values, "exp(w) − 1", label="model")


def test_every_cell_of_a_mosaic_carries_its_value(maps):
    points = mosaic(maps).data[1]
    assert len(points.customdata) == maps.values.size
    for layer, head, dy, dx, value in points.customdata:
        assert value == maps.values[int(layer), int(head), int(dy) + 2, int(dx) + 3]


def test_points_lie_on_their_cells(maps):
    figure = mosaic(maps)
    canvas, points = figure.data[0].z, figure.data[1]
    for x, y, custom in zip(points.x, points.y, points.customdata, strict=True):
        assert canvas[int(y)][int(x)] == custom[4]


def test_zero_is_the_middle_of_the_colours(maps):
    for figure in (mosaic(maps), mosaic(maps, bound=0.3), mosaic(maps, per_head=True), enlarged(maps, 0, 1)):
        assert figure.data[0].zmin == -figure.data[0].zmax
        assert figure.data[0].colorscale[3][0] == 0.5


def test_per_head_colours_end_at_one(maps):
    tile = np.abs(np.asarray(mosaic(maps, per_head=True).data[0].z, float))
    assert np.nanmax(tile) == pytest.approx(1.0)


def test_a_large_mosaic_keeps_its_points_few():
    large = HeadMaps(np.ones((12, 16, 27, 27)), "u")
    assert CLICK_POINTS / 4 < len(mosaic(large).data[1].x) <= CLICK_POINTS
    assert answering(large) == 3
    assert answering(HeadMaps(np.ones((6, 16, 11, 11)), "u")) == 1


def test_chosen_heads_keep_their_numbers(maps):
    figure = mosaic(maps.head_window(2, 2), marked=Cell(1, 3, 0, 0))
    assert figure.layout.xaxis.ticktext == ("2", "3")
    assert {int(custom[1]) for custom in figure.data[1].customdata} == {2, 3}
    assert len(figure.layout.shapes) == 1
    many = HeadMaps(np.zeros((1, 40, 3, 3)), "u").spread(4)
    assert list(many.numbers) == [0, 13, 26, 39]
    assert list(many.head_window(1, 2).numbers) == [13, 26]
    assert many.values.shape == (1, 4, 3, 3)


def test_framing_keeps_offsets(maps):
    frame = shared_frame(maps, HeadMaps(np.zeros((1, 1, 9, 9)), "u"))
    framed = maps.framed(*frame)
    assert frame == (9, 9)
    for dy, dx in ((0, 0), (-2, 3), (2, -3)):
        before, after = maps.cell(dy, dx), framed.cell(dy, dx)
        assert maps.values[0, 0][before] == framed.values[0, 0][after]
    assert np.isnan(framed.values[0, 0, 0, 0])
    assert np.array_equal(framed.framed(5, 7).values, maps.values)


def test_bound_ignores_zeros_and_survives_none():
    sparse = np.zeros((1, 1, 11, 11))
    assert shared_bound(HeadMaps(sparse, "u")) == 1.0
    assert shared_bound(HeadMaps(sparse, "u"), HeadMaps(sparse + 0.1, "u")) == pytest.approx(0.1)
    sparse[0, 0, 3, 3] = -4.0
    assert shared_bound(HeadMaps(sparse, "u"), HeadMaps(np.ones((1, 1, 3, 3)), "u")) == 4.0


def test_enlarged_marks_an_offset_and_says_it(maps):
    figure = enlarged(maps, 2, 3, marked=(-1, 2))
    assert len(figure.layout.shapes) == 1
    assert len(enlarged(maps, 2, 3, marked=(-9, 2)).layout.shapes) == 0
    assert cell_text(maps, Cell(2, 3, -1, 2)) == "Layer 2, head 3, offset Δy -1, Δx +2"


def test_maps_refuse_another_shape():
    with pytest.raises(ValueError, match="layer head y x"):
        HeadMaps(np.zeros((3, 3)), "u")


def test_locality_has_a_line_and_dots_for_each_model():
    figure = locality.by_layer([("a", np.ones((3, 2))), ("b", np.ones((4, 5)))], name="distance")
    assert [len(trace.y) for trace in figure.data] == [6, 3, 20, 4]


def test_curves_show_each_quantity_once():
    rows = [
        {"epoch": i, "train_loss": 1.0, "val_accuracy": 0.5, "entropy/layer_0": 2.0, "gumbel/margin": 1.0}
        for i in range(3)
    ]
    figure = training.curves(rows, epochs=10)
    assert [trace.name for trace in figure.data][:-2] == [
        "train_loss",
        "val_accuracy",
        "entropy/layer_0",
        "gumbel/margin",
    ]
    assert tuple(figure.data[1].y) == (50.0,) * 3
    with pytest.raises(ValueError, match="at least one epoch"):
        training.curves([])


def test_kept_offsets_have_a_panel_a_layer_and_a_dot_an_offset():
    figure = offsets.kept_offsets([[[[0, 0]], [[1, -2]], [[1, -2]]], [[], [[0, 0], [3, 1]], []]])
    assert [(trace.x, trace.y) for trace in figure.data] == [((-2, 0), (1, 0)), ((1, 0), (3, 0))]
    assert figure.data[0].customdata == ("1, 2", "0")
    assert len(offsets.kept_offsets([[[]], [[]]]).data) == 2


def test_locality_survives_a_layer_without_values():
    values = np.array([[np.nan, np.nan], [1.0, np.nan]])
    assert np.array_equal(locality.by_layer([("a", values)], name="d").data[1].y, [np.nan, 1.0], equal_nan=True)
