"""One head edited: what changes, what does not, what is saved, what is refused."""

import pytest
import torch

from aft_lens.checkpoint import load_checkpoint, save_checkpoint
from aft_lens.data import batches, load_data
from aft_lens.extraction import edit, run_with_cache
from aft_lens.models import create_model, position_biases
from analyses.explain.causal import compare, outcome

DATA = load_data("digits")
IMAGES = batches(DATA, 8)[0][0]


def small(name="aft_conv_digits", **fields):
    torch.manual_seed(0)
    model = create_model(name, depth=2, embed_dim=16, num_heads=2, **fields).eval()
    for key, parameter in model.named_parameters():
        if key.endswith(("gamma", "qkv.weight")):
            torch.nn.init.normal_(parameter)
    return model


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one, other):
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("kind", ["free", "reparameterized", "single"])
@torch.no_grad()
def test_a_bias_is_replaced_and_restored(kind):
    model = small(position_bias=kind)
    before, images = state(model), model(IMAGES)
    whole = [w.clone() for w in position_biases(model)]
    peak = torch.zeros(7, 7)
    peak[1, 5] = 2.5
    with edit(model, 1, 0, bias=peak) as old:
        assert torch.equal(old, whole[1][0])
        found = position_biases(model)
        torch.testing.assert_close(found[1][0], peak, rtol=1e-5, atol=1e-5)
        assert torch.equal(found[1][1], whole[1][1])
        assert torch.equal(found[0], whole[0])
        assert not torch.equal(model(IMAGES), images)
    assert_same(before, state(model))
    assert torch.equal(model(IMAGES), images)
    with edit(model, 0, 1, bias=0):
        assert not position_biases(model)[0][1].any()
    with edit(model, 0, 1, bias=lambda w: 2 * w):
        torch.testing.assert_close(position_biases(model)[0][1], 2 * whole[0][1])


def test_an_indexed_head_keeps_its_offsets():
    model = small(keep=(2, 2))
    with torch.no_grad():
        for block in model.blocks:
            block.mixer.position_bias.weight.normal_()
    with edit(model, 0, 1, bias=torch.tensor([1.0, -1.0])):
        assert model.blocks[0].mixer.position_bias().tolist()[1] == [1.0, -1.0]


def test_an_edited_bias_is_saved(tmp_path):
    model = small()
    path = save_checkpoint(tmp_path / "c", model, data=DATA.record(), recipe={}, seed=0, metrics=[])
    loaded = load_checkpoint(path)
    with edit(loaded.model, 0, 0, bias=0):
        saved = loaded.save(tmp_path / "edited")
    again = load_checkpoint(saved)
    assert not position_biases(again.model)[0][0].any()
    assert again.data == loaded.data
    with pytest.raises(FileExistsError, match="choose another path"):
        loaded.save(saved)
    assert repr(again).startswith(f"{saved}: aft_conv, 2 layers x 2 heads")


@torch.no_grad()
def test_a_key_of_every_image_is_replaced():
    model = small()
    name = "blocks.0.mixer.hook_key"
    plain = run_with_cache(model, IMAGES, [name])
    with edit(model, 0, 1, key=lambda key: 5 * key):
        logits, _ = run_with_cache(model, IMAGES, [name])
    assert not torch.equal(logits, plain[0])
    with edit(model, 0, 1, key=lambda key: key + 3.0):  # a constant changes no weight
        torch.testing.assert_close(model(IMAGES), plain[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(model(IMAGES), plain[0])


@torch.no_grad()
def test_a_key_that_is_a_number_is_saved(tmp_path):
    model = small()
    plain = model(IMAGES)
    path = save_checkpoint(tmp_path / "c", model, data=DATA.record(), recipe={}, seed=0, metrics=[])
    loaded = load_checkpoint(path)
    with edit(loaded.model, 0, 1, key=2):
        saved = loaded.save(tmp_path / "edited")
        edited = loaded.model(IMAGES)
    again = load_checkpoint(saved).model
    assert torch.equal(again(IMAGES), edited)
    name = "blocks.0.mixer.hook_key"
    kept = run_with_cache(again, IMAGES, [name])[1][name]
    assert torch.equal(kept[:, 1], torch.full_like(kept[:, 1], 2.0))
    assert kept[:, 0].std() > 0
    assert torch.equal(loaded.model(IMAGES), plain)
    with edit(loaded.model, 0, 1, key=lambda key: torch.zeros_like(key)):  # the same by a hook, up to a constant
        torch.testing.assert_close(loaded.model(IMAGES), edited, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_digits", "aft_conv_digits"])
@torch.no_grad()
def test_attention_is_replaced(name):
    model = small(name)
    plain = model(IMAGES)
    with edit(model, 1, 0, attention=lambda weights: weights):
        torch.testing.assert_close(model(IMAGES), plain, rtol=1e-4, atol=1e-5)
    tokens = 65 if name == "vit_digits" else 64
    with edit(model, 1, 0, attention=torch.full((tokens, tokens), 1 / tokens)):
        assert not torch.allclose(model(IMAGES), plain, rtol=1e-4, atol=1e-5)
    assert torch.equal(model(IMAGES), plain)


def test_the_change_is_measured_with_its_interval():
    model, test = small(), batches(DATA, 64)
    before = outcome(model, test)
    with edit(model, 0, 0, bias=0):
        change = compare(before, outcome(model, test))
    assert change.interval[0] <= change.change <= change.interval[1]
    for shown, words in ((before, "accuracy, % [95 %]"), (change, "change (points) [95 %]")):
        assert words in repr(shown)
        assert "<table>" in shown._repr_html_()


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("aft_conv_digits", {}, "edit needs bias, key or attention"),
        ("vit_digits", {"bias": 0}, "give attention to edit a ViT"),
        ("aft_conv_digits", {"layer": 2, "bias": 0}, "layer must be 0 to 1, got 2"),
        ("aft_conv_digits", {"head": -1, "key": 0}, "head must be 0 to 1, got -1"),
        ("vit_digits", {"head": 5, "attention": 0}, "head must be 0 to 1, got 5"),
        ("aft_conv_digits", {"bias": torch.zeros(5, 5)}, r"bias must have shape \(7, 7\) or broadcast"),
        ("aft_conv_digits", {"bias": float("-inf")}, "bias must be finite, got -inf"),
    ],
)
def test_what_cannot_be_edited_is_refused(model, options, words):
    one = small(model)
    before = state(one)
    with pytest.raises(ValueError, match=words), edit(one, **{"layer": 0, "head": 0, **options}):
        pass
    assert_same(before, state(one))


def test_a_single_position_head_takes_one_offset():
    with pytest.raises(ValueError, match="single-position"), edit(small(position_bias="single"), 0, 0, bias=1.0):
        pass
