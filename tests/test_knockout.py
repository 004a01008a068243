"""Edits of position biases: what becomes of w, what that costs on the same images, and that all is put back."""

import json

import pytest
import torch

from aft_lens.checkpoint import load_checkpoint
from aft_lens.models import create_model
from analyses.knockout import knock_out, show
from analyses.knockout.edits import EDITS, edited
from analyses.pruning.images import load_images
from analyses.pruning.measuring.cost import predict
from app.cli import main


def edit(name, w):
    return EDITS[name][1](w, torch.Generator().manual_seed(0))


def test_what_becomes_of_w():
    w = torch.arange(1.0, 51.0).reshape(2, 5, 5)
    assert edit("zero", w).abs().max() == 0
    shuffled = edit("shuffled", w)
    assert not torch.equal(shuffled, w)
    assert torch.equal(shuffled.flatten(1).sort(1).values, w.flatten(1))
    assert torch.equal(edit("mirrored", w)[0, 2], torch.tensor([15.0, 14, 13, 12, 11]))
    assert torch.equal(edit("shifted", w)[0, 0], torch.tensor([0.0, 1, 2, 3, 4]))
    near = edit("near", w)
    assert (near != 0).sum() == 2 * 9
    assert torch.equal(near + edit("far", w), w)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = create_model("aft_conv_digits", depth=2, embed_dim=16, num_heads=2, window_size=5)
    model.blocks[0].get_submodule("mixer.position_bias").assign(2 * torch.randn(2, 5, 5))
    return model.eval()


@pytest.fixture(scope="module")
def images():
    return load_images({"name": "digits", "img_size": 8}, test=60, calibration=0).test


def test_all_heads_layers_and_single_ones(model, images):
    before = predict(model, images)[0]
    found = knock_out(model, images, by="head")
    assert [(k.edit, k.layer, k.head) for k in found.knocks] == [
        *((name, None, None) for name in EDITS), ("zero", 0, None), ("zero", 1, None),
        ("zero", 0, 0), ("zero", 0, 1), ("zero", 1, 0), ("zero", 1, 1),
    ]  # fmt: skip
    by_place = {(k.edit, k.layer, k.head): k for k in found.knocks}
    assert by_place["zero", 0, None].largest == by_place["zero", None, None].largest > 0
    assert by_place["zero", 1, None].largest == by_place["zero", 1, 0].largest == 0  # its biases are 0 already
    assert by_place["zero", 1, None].effect.change == 0
    with edited(model, {0: torch.zeros(2, 5, 5)}):
        changed = predict(model, images)[0]
    assert by_place["zero", 0, None].largest == pytest.approx(float((changed - before).abs().max()))
    torch.testing.assert_close(predict(model, images)[0], before)
    assert found.table().rows[0][1] == "all"
    assert len(found.figure().axes[0].get_yticklabels()) == len(found.interactive().data[0].x) == 12


def test_biases_come_back_after_an_error(model):
    mixer = model.blocks[0].mixer
    kept = mixer.position_bias
    with pytest.raises(RuntimeError), edited(model, {0: torch.zeros(2, 5, 5)}):
        raise RuntimeError
    assert mixer.position_bias is kept


def test_models_and_words_at_fault(model, images):
    with pytest.raises(ValueError, match="attention, which has no position biases"):
        knock_out(create_model("vit_digits", depth=1), images)
    with pytest.raises(ValueError, match="by must be model, layer or head"):
        knock_out(model, images, by="token")
    with pytest.raises(ValueError, match="at least one"):
        knock_out(model, [])


def test_the_command_and_the_page(tmp_path, capsys):
    line = ["knockout", "checkpoints/digits-single", "--images", "50", "--by", "model", "--out", str(tmp_path)]
    assert main(line) == 0
    assert "kept beyond 1.5 patches alone" in capsys.readouterr().out
    record = json.loads((tmp_path / "knockout.json").read_text())
    assert [knock["edit"] for knock in record["knocks"]] == list(EDITS)
    assert record["images"] == 50
    path = load_checkpoint("checkpoints/digits-single").path
    assert show(path).knocks[-1].layer == 2
