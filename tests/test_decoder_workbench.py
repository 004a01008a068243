"""The workbench for decoders: offsets in words, weights of a target, knock-outs, and few offsets with parity."""

import json
import math

import numpy as np
import pytest
import torch

from aft_lens.checkpoint import load_decoder, save_checkpoint
from aft_lens.data.sequences import load_sequences
from aft_lens.models import create_decoder
from aft_lens.training import measure_bits
from analyses.decoders.edits import kept_offsets
from analyses.decoders.knockout import knock_out
from analyses.decoders.maps import offset_biases
from analyses.decoders.offsets import by_offset, groups, pictured, place, words
from analyses.decoders.prune import prune_offsets
from analyses.decoders.weights import _words_back, target_weights
from app.cli import main

RGB = (32, 32, 3)


@pytest.fixture
def pixels(tmp_path):
    torch.manual_seed(0)
    data = load_sequences("digits").record()
    model = create_decoder("aft_local_digits", embed_dim=16, depth=2)
    with torch.no_grad():
        for block in model.blocks:
            for factor in block.mixer.position_bias.parameters():
                factor.mul_(5)
    return save_checkpoint(tmp_path / "pixels", model, data=data, recipe={}, seed=0, metrics=[])


def test_offsets_are_said_as_people_say_them():
    said = {offset: words(offset, RGB) for offset in (0, 1, 2, 3, 4, 96, 99, 93, 97, 192)}
    assert said == {
        0: "itself", 1: "1 channel back", 2: "2 channels back", 3: "previous pixel",
        4: "1 channel back of previous pixel", 96: "previous row", 99: "1 up, 1 left", 93: "1 up, 1 right",
        97: "1 channel back of previous row", 192: "2 up",
    }  # fmt: skip
    assert words(7, ()) == "7 back"
    for offset in range(300):
        up, left, back = place(offset, RGB)
        assert 96 * up + 3 * left + back == offset
        assert -16 <= left <= 16
        assert 0 <= back < 3


@pytest.mark.parametrize(("window", "grid"), [(16, (8, 8, 1)), (256, RGB), (32, ()), (2, ())])
def test_groups_have_every_offset_once(window, grid):
    found = [offset for offsets in groups(window, grid).values() for offset in offsets]
    assert sorted(found) == list(range(window))


def test_windows_are_pictured_around_the_target():
    image = pictured(np.arange(20.0), (8, 8, 1))
    assert image.shape == (3, 8)  # two rows up; three pixels to the right of the target, four to its left
    assert image[2, 4] == 0
    assert image[2, 3] == 1
    assert image[1, 4] == 8
    assert image[1, 5] == 7
    assert math.isnan(image[2, 5])
    assert pictured(np.arange(3.0), ()).tolist() == [[2, 1, 0]]


def test_biases_by_offset_are_those_that_the_layers_compute_with(pixels):
    model = load_decoder(pixels).model
    for bias, found in zip((block.mixer.position_bias for block in model.blocks), by_offset(model), strict=True):
        w = bias.dense()
        for target, offset in ((0, 0), (5, 3), (40, 15), (63, 1)):
            torch.testing.assert_close(found[target, offset], w[target, target - offset])
    maps = offset_biases(load_decoder(pixels))
    expected = torch.expm1(by_offset(model)[1][3:, 3]).mean().item()
    assert maps.mean[1, 3] == pytest.approx(expected, rel=1e-5)
    assert maps.strongest(0)[0] == int(maps.moved[0].argmax())


def test_an_edit_lasts_as_long_as_its_block(pixels):
    model, data = load_decoder(pixels).model, load_sequences("digits")
    symbols = next(data.test.windows(4)).symbols[:, :-1]
    with torch.no_grad():
        before = model(symbols)
        with kept_offsets(model, [torch.ones(16, dtype=torch.bool)] * 2):
            torch.testing.assert_close(model(symbols), before, atol=1e-4, rtol=1e-4)
        with kept_offsets(model, [torch.zeros(16, dtype=torch.bool)] * 2):
            without = model(symbols)
        assert (without - before).abs().max() > 1e-3
        assert torch.equal(model(symbols), before)
    simple = create_decoder("aft_simple_digits", embed_dim=16, depth=2).eval()
    state = {name: tensor for name, tensor in model.state_dict().items() if "position_bias" not in name}
    simple.load_state_dict(state)
    with torch.no_grad():  # AFT-local without any w is AFT-simple
        torch.testing.assert_close(simple(symbols), without, atol=1e-4, rtol=1e-4)


def test_weights_of_a_target_are_exp_key_plus_w(pixels):
    loaded, data = load_decoder(pixels), load_sequences("digits")
    found = target_weights(loaded, data.test, target=40, windows=5, data="digits")
    np.testing.assert_allclose(found.share.sum(1), 1, rtol=1e-6)
    symbols = next(data.test.windows(5, limit=5)).symbols[:, :41]
    with torch.no_grad():
        block = loaded.model.blocks[0]
        x = loaded.model.embed(symbols) + loaded.model.pos_embed[:, :41]
        log = block.mixer.key(block.norm1(x)) + block.mixer.position_bias.dense()[40, :41].unsqueeze(-1)
        expected = log.softmax(1).mean((0, 2)).flip(0)
    np.testing.assert_allclose(found.share[0], expected.numpy(), rtol=1e-4)
    with pytest.raises(ValueError, match="target must be from 0 to 63, got 64"):
        target_weights(loaded, data.test, target=64)


def test_words_are_counted_back_from_the_target():
    text = torch.tensor([list(b"ab cd e")])
    assert _words_back(text).tolist() == [[2, 2, 2, 1, 1, 1, 0]]


def test_knock_outs_are_paired_and_of_every_group(pixels):
    loaded, data = load_decoder(pixels), load_sequences("digits")
    found = knock_out(loaded, data.test, windows=30, data="digits", unit="dim")
    assert found.bits.mean == pytest.approx(measure_bits(loaded.model, data.test, limit=30).mean, rel=1e-5)
    assert [knock.words for knock in found.knocks] == ["all", *groups(16, (8, 8, 1)), "all", "all"]
    whole = found.knocks[0].change
    with kept_offsets(loaded.model, [torch.zeros(16, dtype=torch.bool)] * 2):
        without = measure_bits(loaded.model, data.test, limit=30)
    assert whole.mean == pytest.approx(without.mean - found.bits.mean, abs=1e-6)
    assert whole.interval[0] <= whole.mean <= whole.interval[1]
    assert "paired" in str(found)


def test_few_offsets_compute_what_the_masked_layers_do(pixels):
    found = prune_offsets(load_decoder(pixels), load_sequences("digits").test, windows=20, unit="dim")
    assert {rung.k for rung in found.rungs} == {0, 1, 2, 4, 8}
    assert found.parity < 1e-4
    at = {(rung.k, rung.criterion): rung.change.mean for rung in found.rungs}
    assert at[0, "magnitude"] == at[0, "nearest"] == at[0, "random"] != 0
    assert abs(at[8, "magnitude"]) < abs(at[0, "magnitude"])


@pytest.mark.parametrize("what", ["maps", "weights", "knockout", "prune"])
def test_the_command_writes_what_it_prints(what, pixels, tmp_path, capsys):
    assert main(["decoder", what, str(pixels), "--windows=6", f"--out={tmp_path}/out"]) == 0
    (file,) = (tmp_path / "out").glob("*.json")
    record = json.loads(file.read_text())
    assert record["source"] == "pixels"
    assert "pixels" in capsys.readouterr().out
    assert (tmp_path / "out" / f"{file.stem}.png").stat().st_size > 0


def test_decoders_without_biases_are_told_so(tmp_path, capsys):
    data = load_sequences("digits").record()
    model = create_decoder("transformer_digits", embed_dim=16, depth=1)
    path = save_checkpoint(tmp_path / "t", model, data=data, recipe={}, seed=0, metrics=[])
    assert main(["decoder", "maps", str(path)]) == 2
    assert "mixes with attention, which has no position biases" in capsys.readouterr().err
