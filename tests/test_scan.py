"""A scan's numbers against their definitions, findings that are there and those that are not, page and command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_ablate import GRID, HEADS, N, Toy, noise, readers
from torch import nn

from aft_lens.checkpoint import load_checkpoint
from aft_lens.data import batches, load_data
from aft_lens.extraction import relative_attention
from aft_lens.statistics import jackknife
from analyses.explain.position import head_positions
from analyses.maps.frame import mean_distance
from analyses.scan import Finding, scan
from analyses.scan.findings import head_findings, layer_findings, measures, ranked
from analyses.scan.gather import _Kept, _Tokens, gather
from app.cli import main


@pytest.fixture(scope="module")
def toy():
    reader = Toy(2)
    sums = gather(reader, noise(24, 4))
    return reader, sums, measures(sums)


def test_numbers_are_those_of_the_other_analyses(toy):
    reader, sums, found = toy
    positions = head_positions(reader, noise(24, 4))
    np.testing.assert_allclose(found.position[0], positions.variance.numpy(), rtol=1e-4)
    np.testing.assert_allclose(found.prefix[0], positions.columns.numpy(), rtol=1e-5)
    entropy = np.log(N) - positions.information.numpy()
    np.testing.assert_allclose(found.effective[0], np.exp(entropy) / N, rtol=1e-5)
    np.testing.assert_allclose(found.strongest[0], positions.maps.flatten(2).amax(2).numpy(), rtol=1e-5)
    plain = positions.maps.numpy() * sums.targets
    np.testing.assert_allclose(found.distance[0], mean_distance(plain), rtol=1e-5)
    assert found.flat == pytest.approx(float(mean_distance(sums.targets)))
    attention = relative_attention(reader, noise(24, 4))  # with the prefix' share
    dy, dx = found.offsets[0, 0]
    assert attention[0, 0, dy + 3, dx + 4] == pytest.approx(0.8 * found.strongest[0, 0, 0], rel=1e-4)


def test_a_head_that_no_image_changes_has_no_interval_and_one_that_they_change_has(toy):
    _, _, found = toy
    low, high = found.interval("distance")
    np.testing.assert_allclose(low[:, 0], high[:, 0], rtol=1e-6)
    assert (high[:, 1] - low[:, 1] > 1e-3).all()
    assert ((low[:, 1] < found.distance[0, :, 1]) & (found.distance[0, :, 1] < high[:, 1])).all()


def test_findings_say_layer_head_and_number(toy):
    _, _, found = toy
    made = head_findings(found, GRID, ("the class token", "prefix token 1"))
    position = {(one.layer, one.head): one for one in made if one.kind == "position"}
    assert position[1, 0].words == "offset explains 100 % [100, 100] of the variance of head 1.0's attention"
    assert position[1, 0].strength == pytest.approx(1)
    prefix = [one for one in made if one.kind == "prefix" and one.head == 0]
    assert [one.words for one in prefix[:2]] == [
        "patches of head 0.0 give 10 % [10, 10] of their attention to the class token",
        "patches of head 0.0 give 10 % [10, 10] of their attention to prefix token 1",
    ]
    assert all(one.strength > 0.05 for one in made)
    assert not [one for one in made if one.kind == "flat"]
    strengths = [one.strength for one in ranked(made)]
    assert strengths == sorted(strengths, reverse=True)


def test_what_is_to_be_expected_is_no_finding(toy):
    """Attention that is flat but for a little is flat, and nothing else."""
    _, sums, _ = toy
    targets = np.broadcast_to(sums.targets, sums.folded.shape) / N * sums.images[:, None, None, None, None]
    shape = sums.entropy.shape
    count = np.broadcast_to(sums.images[:, None, None], shape)
    flat = replace(
        sums, folded=targets.copy(), square=count.copy(), entropy=count * N * np.log(N),
        column=np.broadcast_to(count[..., None], (*shape, N)).copy(), prefix=np.zeros((*shape, 0)),
        to_outliers=np.zeros(0),
    )  # fmt: skip
    made = head_findings(measures(flat), GRID, ())
    assert {one.kind for one in made} == {"flat"}
    assert len(made) == 2 * HEADS


class Outlier(Toy):
    """One patch of every image is ten times as large, and registers are larger still."""

    def logits(self, images):
        images = images / images.norm(dim=1, keepdim=True)
        images[:, :, 1, 2] *= 10
        return self.model(images)


def test_patches_and_registers_of_large_norm_are_found():
    reader = Outlier(1)
    for block in reader.model.blocks:
        nn.init.zeros_(block.mixer.proj.weight)
        nn.init.zeros_(block.mixer.proj.bias)
    sums = gather(reader, noise(12, 3))
    found = {one.kind: one for one in layer_findings(sums, ("the class token",))}
    assert found["norms"].value == pytest.approx(1 / N)
    assert "the largest 10.0 times" in found["norms"].words
    assert "registers" not in found, "a norm of sqrt(6) is not over three"
    got = measures(sums)
    with torch.no_grad(), reader.exposed(lambda layer, a: seen.append(a)):
        seen = []
        for images, _ in noise(12, 3):
            reader.logits(images)
    patches = torch.cat(seen[::2])[:, :, 1:, 1:]
    share = (patches / patches.sum(-1, keepdim=True))[..., GRID[1] + 2].mean((0, 2))
    np.testing.assert_allclose(got.outlier[0, 0], share.numpy(), rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_place_explains_what_it_makes(share):
    """Tokens of a part of place and a part of noise of the same variance."""
    torch.manual_seed(0)
    place, tokens = torch.randn(30, 16), _Tokens()
    for part in range(8):
        noise = torch.randn(20, 30, 16)
        tokens.add(part, share**0.5 * place + (1 - share) ** 0.5 * noise + 3)
    value, (low, high) = jackknife(tokens.explained())
    assert value == pytest.approx(share, abs=0.05)
    assert high - low < 0.05


def test_a_jackknife_of_means_is_students_interval_of_the_mean():
    values = np.array([1.0, 2.0, 4.0, 5.0])
    left_out = (values.sum() - values) / 3
    value, (low, high) = jackknife(left_out)
    assert value == pytest.approx(3)
    half = 3.182446 * values.std(ddof=1) / 2
    assert (low, high) == (pytest.approx(3 - half, abs=1e-5), pytest.approx(3 + half, abs=1e-5))


@pytest.mark.parametrize("place", range(6))
def test_every_adapter_is_scanned(place):
    reader = list(readers())[place]
    torch.manual_seed(2)
    found = scan(reader, torch.randn(6, 3, 28, 28).split(2))
    assert np.isfinite(found.measures.distance).all()
    assert found.sums.norms.shape[1] == 3, "tokens before, between and after two blocks"
    assert np.shape(found.kinds) == (2, reader.num_heads)


def test_a_scan_saves_one_page_and_one_record(toy, tmp_path):
    reader, _, _ = toy
    found = scan(reader, noise(24, 4))
    files = found.save(tmp_path)
    assert [file.name for file in files] == ["scan.json", "scan.html"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["scan.html", "scan.json"]
    record = json.loads(files[0].read_text())
    assert [one["strength"] for one in record["findings"]] == sorted(
        (one["strength"] for one in record["findings"]), reverse=True
    )
    assert len(record["heads"]) == 2 * HEADS
    assert record["heads"][0]["kind"] == found.kinds[0][0]
    page = files[1].read_text()
    assert "offset explains 100 % [100, 100] of the variance of head 1.0" in page
    assert "where" in str(found)
    assert found.figure()


def test_an_aft_is_scanned_with_what_its_biases_are_for():
    loaded = load_checkpoint("digits-entropy")
    data = load_data("digits")
    given = list(batches(data, 360))
    found = scan(loaded.model, given[0][0][:60].split(20), labelled=given)
    bias = [one for one in found.findings if one.kind == "bias"]
    assert bias
    assert all(one.interval[0] > 0 and one.strength < one.interval[0] for one in bias)
    assert all(isinstance(one, Finding) for one in bias)
    assert "the loss rises by" in bias[0].words
    assert not loaded.model.training


def test_the_command_and_what_it_refuses(tmp_path, capsys):
    assert main(["scan", "digits-vit", "--images", "8", "--out", str(tmp_path)]) == 0
    assert "digits-vit: " in capsys.readouterr().out
    assert main(["scan", "digits-vit", "--images", "1"]) == 2
    assert "images must be 2 or more" in capsys.readouterr().err
    assert main(["scan", "timm:vit_tiny_patch16_224", "--pretrained", "false"]) == 2
    assert "give --data, e.g. images:PATH" in capsys.readouterr().err
    with pytest.raises(ValueError, match="two batches or more"):
        scan(Toy(0), noise(3, 3))


def test_groups_are_kept_in_few_pieces_of_memory():
    """Pieces of every group would break up what large tensors leave: 1,000 images of a ViT-S took 14 GB."""
    kept, pieces = _Kept(), set()
    rows = np.random.default_rng(0).normal(size=(50, 2, 3))
    for row in rows:
        kept.add(row)
        pieces.add(kept.rows.__array_interface__["data"][0])
    assert np.array_equal(kept.rows, rows)
    assert len(pieces) <= 4
