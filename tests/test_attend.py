"""Attention of one image: the rows that the model used, rollout by its definition, and what is refused."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_ablate import GRID, N, Toy, readers
from tiny_dinov2 import save_dinov2

from analyses.attend import attend
from app.cli import main


@pytest.fixture(scope="module")
def image():
    return torch.randn(6, *GRID, generator=torch.Generator().manual_seed(1))


def toy(prefix):
    reader = Toy(prefix)
    reader.in_chans = 6
    return reader


@torch.no_grad()
@pytest.mark.parametrize("target", [None, (2, 3)])
def test_maps_are_the_targets_rows_and_rollout_follows_its_definition(image, target):
    reader = toy(1)
    weights = {}
    with reader.exposed(weights.__setitem__):
        reader.logits(image[None])
    found = attend(reader, image, target)
    token = 0 if target is None else 1 + 2 * GRID[1] + 3
    total = torch.eye(1 + N)
    for layer in range(2):
        rows = weights[layer][0, :, token, 1:].reshape(2, *GRID)
        np.testing.assert_allclose(found.maps[layer], rows.numpy(), rtol=1e-5)
        total = (0.5 * weights[layer][0].mean(0) + 0.5 * torch.eye(1 + N)) @ total
        np.testing.assert_allclose(found.rollout[layer], total[token, 1:].reshape(GRID).numpy(), rtol=1e-4)
    assert (found.maps.sum((2, 3)) < 1).all(), "the class token keeps a share"
    assert ("class token" in str(found)) == (target is None)


def test_a_target_that_is_not_there_is_refused(image):
    with pytest.raises(ValueError, match="has no class token; give a target"):
        attend(toy(0), image)
    with pytest.raises(ValueError, match="target must be a row of 0 to 3 and a column of 0 to 4"):
        attend(toy(1), image, (4, 0))
    with pytest.raises(ValueError, match=r"image must be \(6, 4, 5\)"):
        attend(toy(1), image[:3])


@pytest.mark.parametrize("place", range(6))
def test_every_adapters_model_is_shown(place, tmp_path):
    reader = list(readers())[place]
    picture = torch.randn(3, 28, 28, generator=torch.Generator().manual_seed(1))
    found = attend(reader, picture, (1, 2))
    assert found.maps.shape == (2, reader.num_heads, 4, 4)
    assert found.rollout.sum((1, 2)).max() <= 1 + 1e-6
    if place == 0:
        names = {path.name for path in found.save(tmp_path)}
        assert names == {"attend.json", "attend.png", "attend.svg", "attend.html"}


def test_the_command(tmp_path, capsys):
    save_dinov2(tmp_path / "dino")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    words = ["attend", f"hf:{tmp_path / 'dino'}", str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]
    assert main([*words, "--target", "[1,2]"]) == 0
    assert "the patch in row 1, column 2" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "attend.json").read_text())
    assert record["target"] == [1, 2]
    assert np.shape(record["maps"]) == (2, 2, 4, 4)
    assert main(words) == 0
    assert main([*words, "--target", "[1]"]) == 2
    assert "target must be a row and a column" in capsys.readouterr().err
