"""Decoders through the recipes, Trainer, resume and checkpoints of classifiers."""

import math

import pytest
import torch
import yaml
from lightning_advice import LIGHTNING_ADVICE

from aft_lens.checkpoint import load_checkpoint, load_decoder, read_metrics
from aft_lens.data.sequences import load_sequences
from aft_lens.errors import InputError
from aft_lens.models import create_decoder, decoder_config, list_decoders
from aft_lens.training import list_recipes, measure_bits, read_decoder_recipe, read_recipe, train, waiting
from app.cli import main

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]
SHORT = (
    "model.depth=1", "model.embed_dim=16", "model.num_heads=2", "data.batch_size=8", "trainer.limit_batches=2",
    "trainer.accelerator=cpu", "trainer.precision=32-true",
)  # fmt: skip
COUNTS = {
    "aft_local_12x512_s256": 44_384_000, "aft_local_24x256_s256": 29_309_952, "aft_simple_24x256_t3072": 19_872_768,
}  # fmt: skip


def mixing(model):
    """Parameters of a layer as Table 3 counts them: query, key and value weights, and w."""
    mixer = model.blocks[0].mixer
    weights = (mixer.query.weight, mixer.key.weight, mixer.value.weight, *mixer.position_bias.parameters())
    return sum(weight.numel() for weight in weights)


def test_a_layer_has_the_parameters_of_table_3():
    with torch.device("meta"):
        factorized = create_decoder("aft_local_24x256_s256")
        free = create_decoder("aft_local_24x256_s256", position_bias="free")
    assert mixing(factorized) == 2 * 3072 * 64 + 3 * 256**2 == 589_824  # printed as 0.6M
    assert mixing(free) == 3072**2 + 3 * 256**2 == 9_633_792  # printed as 9.6M


@pytest.mark.parametrize(("name", "count"), COUNTS.items())
def test_whole_decoders_have_these_parameters(name, count):
    with torch.device("meta"):
        model = create_decoder(name)
    c = model.config
    block = 12 * c.embed_dim**2 + 13 * c.embed_dim + (2 * c.length * c.bias_rank if c.mixer == "aft_local" else 0)
    around = (c.vocab_size + 1 + c.length + c.vocab_size + 2) * c.embed_dim + c.vocab_size
    assert sum(p.numel() for p in model.parameters()) == c.depth * block + around == count


def test_registered_decoders_are_the_papers():
    for name in list_decoders():
        config = decoder_config(name)
        assert config.dropout == 0.1
        if config.mixer == "aft_local" and config.depth > 6:
            assert config.bias_rank == {3072: 64}.get(config.length, 256)
            assert config.window_size == {3072: 256}.get(config.length, 32)
    with pytest.raises(ValueError, match="unknown; choose one of"):
        decoder_config("gpt")


def test_factors_start_as_in_the_paper():
    torch.manual_seed(0)
    bias = create_decoder("aft_local_24x256_s256", depth=1).blocks[0].mixer.position_bias
    for factor in (bias.target, bias.source):
        assert factor.shape == (3072, 64)
        assert factor.std().item() == pytest.approx(0.1, rel=0.01)  # N(0, 10^-2): a variance


def test_recipes_have_the_papers_settings():
    pixels, text = read_decoder_recipe("cifar10-pixels-aft-local"), read_decoder_recipe("enwik8-aft-local")
    for recipe, decay, epochs in ((pixels, 0.1, 200), (text, 0.5, 100)):
        assert (recipe.optim.lr, recipe.optim.weight_decay) == (3e-3, decay)
        assert (recipe.data.batch_size, recipe.trainer.epochs) == (128, epochs)
    assert pixels.data.augment == "flip-levels"
    assert (pixels.model.length, pixels.model.grid, text.model.length) == (3072, (32, 32, 3), 1024)
    with pytest.raises(ValueError, match="read it by read_decoder_recipe"):
        read_recipe("enwik8-aft-local")
    with pytest.raises(ValueError, match="read it by read_recipe"):
        read_decoder_recipe("digits-conv")


def test_a_broken_run_goes_on_to_the_same_weights(tmp_path):
    recipe = read_decoder_recipe("digits-pixels-aft-local", *SHORT, "trainer.epochs=3")
    whole = load_decoder(train(recipe, tmp_path / "whole", progress=False))
    short = read_decoder_recipe("digits-pixels-aft-local", *SHORT, "trainer.epochs=3")
    path = tmp_path / "broken"

    class Killed(Exception):
        pass

    def killed(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        return write(*args, **kwargs)

    import aft_lens.training.checkpointing as place  # noqa: PLC0415

    calls, write = [], place.save_checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, "save_checkpoint", killed)
        with pytest.raises(Killed):
            train(short, path, progress=False)
    again = load_decoder(train(short, path, resume=True, progress=False))
    state = again.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in whole.model.state_dict().items())
    assert [row["epoch"] for row in read_metrics(path)] == [0, 1, 2]


def test_validation_bits_are_those_of_the_whole_split(tmp_path):
    recipe = read_decoder_recipe("digits-pixels-aft-local", *SHORT[:4], "trainer.epochs=1", "trainer.accelerator=cpu")
    path = train(recipe, tmp_path / "run", progress=False)
    loaded = load_decoder(path)
    found = measure_bits(loaded.model, load_sequences("digits").val)
    last = read_metrics(path)[-1]
    assert last["val_bits"] == pytest.approx(found.mean, rel=1e-5)
    assert last["val_loss"] == pytest.approx(found.mean * math.log(2), rel=1e-5)
    assert loaded.data["grid"] == (8, 8, 1)
    with pytest.raises(InputError, match="is a decoder, which this does not take"):
        load_checkpoint(path)
    with pytest.raises(InputError, match="is a vision model"):
        load_decoder("digits-conv")
    config = path / "config.yaml"
    config.write_text(config.read_text().replace("length: 64", "length: 65").replace("- 8", "- 5"))
    with pytest.raises(InputError, match="grid must hold length = 65"):
        load_decoder(path)


def test_the_command_trains_decoders(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("abcdefgh" * 500)
    line = ["train", "--recipe", "text-aft-local", f"--data.name=text:{tmp_path}/text.txt", f"--out={tmp_path}"]
    changes = [*(f"--{change}" for change in SHORT), "--trainer.epochs=1", "--model.length=32", "--optim.lr=0.01"]
    assert main([*line, *changes]) == 0
    printed = capsys.readouterr().out
    assert "3,600 / 200 / 200 training, validation and test symbols, sequences of 32" in printed
    assert "val_bits" in printed
    record = yaml.safe_load((tmp_path / "text-aft-local" / "config.yaml").read_text())
    assert record["kind"] == "decoder"
    assert main([*line, *changes, "--name=again", f"--start={tmp_path}/text-aft-local"]) == 0
    assert main([*line, *changes, "--name=third", "--model.depth=2", f"--start={tmp_path}/text-aft-local"]) == 2
    assert "does not fit the model" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in list_recipes() if "digits-pixels" in name])
def test_small_recipes_train(name, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(waiting, "note", said.append)
    monkeypatch.setattr(waiting, "TOLERATED", -1.0)  # as if the machine were busy
    rows = read_metrics(train(read_decoder_recipe(name, *SHORT, "trainer.epochs=1"), tmp_path / "run", progress=False))
    assert math.isfinite(rows[0]["train_loss"])
    assert "its augmentation takes so long" in said[0]
