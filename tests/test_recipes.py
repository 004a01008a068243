"""Recipes: each names a registered model and changes fields of it; options come last."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
import yaml
from lightning_advice import LIGHTNING_ADVICE

from aft_lens.models import VisionModel, list_decoders, list_models, model_config
from aft_lens.training import list_recipes, parse_recipe, read_decoder_recipe, read_recipe, recipe_of, recipe_path
from app.cli import main
from app.train import train_parser

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
SINCE = {
    "model": {
        "bias_start": 0.05, "positions": 1, "prefix_tokens": 1, "pool": "default", "norm_eps": 1e-6, "heads": [],
    }, "data": {"held_out": True, "workers": "auto", "bad_files": "skip"},
    "sparsity": {"gate_weight": 0.0}, "trainer": {"save_steps": 0},
}  # fmt: skip
"""Fields that recipes did not have when they were recorded."""
KNOWN = [name for name in list_recipes() if name in GOLDEN["recipes"] and not name.startswith("cifar10")]
"""Those that were recorded and are not made anew since."""


def plain(recipe):
    return json.loads(json.dumps(asdict(recipe)))


@pytest.mark.parametrize("name", list_recipes())
def test_names_a_registered_model(name):
    record = yaml.safe_load(recipe_path(name).read_text())
    decoder = record["model"]["name"] in list_decoders()
    assert decoder or record["model"]["name"] in list_models()
    assert "mixer" not in record["model"]
    read = read_decoder_recipe if decoder else read_recipe
    assert read(name).model.name == record["model"]["name"]


@pytest.mark.parametrize("name", KNOWN)
def test_is_what_it_was(name):
    found, before = plain(read_recipe(name)), GOLDEN["recipes"][name]
    del found["model"]["name"]
    for part, fields in SINCE.items():
        assert {field: found[part].pop(field) for field in fields} == fields
        before = {**before, part: {name: value for name, value in before[part].items() if name not in fields}}
    if found["model"]["mixer"] != "aft_full":  # the rank of factors, which no other mixer has
        found["model"]["bias_rank"] = before["model"]["bias_rank"]
    assert found == before


@pytest.mark.parametrize("name", KNOWN)
def test_first_weights_are_what_they_were(name):
    torch.manual_seed(0)
    state = VisionModel(read_recipe(name, "model.bias_start=1").model).state_dict()
    before = GOLDEN["first_weights"][name]
    total = sum(float(tensor.double().sum()) for tensor in state.values())
    squares = sum(float(tensor.double().square().sum()) for tensor in state.values())
    assert total == pytest.approx(before["sum"], rel=1e-9)
    assert squares == pytest.approx(before["squares"], rel=1e-9)


def parsed(*words):
    parser = train_parser()
    return recipe_of(parser, parse_recipe(parser, words))


def test_options_change_a_registered_model():
    recipe = parsed("--model.name", "aft_conv_digits", "--model.depth=2")
    assert recipe.model == replace(model_config("aft_conv_digits"), depth=2)


def test_an_option_names_another_model_than_the_recipe():
    recipe = parsed(f"--recipe={recipe_path('digits-conv')}", "--model.name=vit_digits")
    assert recipe.model == replace(model_config("vit_digits"), depth=3)


def test_changes_come_after_the_file():
    recipe = read_recipe("digits-single", "model.depth=1", "seed=4")
    assert (recipe.model.depth, recipe.model.position_bias, recipe.seed) == (1, "single", 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("model.depht=1",), "depht"),
        (("model.name=vit_huge",), "unknown; choose one of"),
        (("model.mixer=fft",), "fft"),
    ],
)
def test_unknown_names_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        read_recipe("digits-conv", *changes)


def test_train_takes_a_registered_model(tmp_path, capsys):
    short = ["--trainer.epochs=1", "--trainer.limit_batches=1", "--trainer.accelerator=cpu"]
    line = ["train", "--name=tiny", f"--out={tmp_path}", "--model.name=aft_conv_digits", "--model.depth=1"]
    assert main([*line, *short]) == 0
    config = yaml.safe_load((tmp_path / "tiny" / "config.yaml").read_text())
    assert config["model"]["name"] == "aft_conv_digits"
    assert config["model"]["depth"] == 1
