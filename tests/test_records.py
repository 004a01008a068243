"""config.yaml and weights from anybody: answered in words, nothing allocated or run, good ones beside them shown."""

import hashlib
import subprocess
import sys

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import aft_lens.record
from aft_lens.checkpoint import (
    CARD,
    held_out_accuracy,
    list_checkpoints,
    load_checkpoint,
    load_decoder,
    note_test_accuracy,
    read_config,
    read_metrics,
    save_checkpoint,
)
from aft_lens.data import load_data
from aft_lens.errors import InputError
from aft_lens.models import create_decoder, create_model
from aft_lens.text_files import read_json, read_yaml
from aft_lens.weights import Entry, differences, numbers, read_tensors, write_tensors
from app.cli import main

MODEL = {"depth": 1, "embed_dim": 16, "num_heads": 2}
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.fixture
def checkpoint(tmp_path):
    model = create_model("aft_conv_digits", **MODEL)
    rows = [{"epoch": 0, "val_accuracy": 0.5}]
    return save_checkpoint(tmp_path / "c", model, data=load_data("digits").record(), recipe={}, seed=0, metrics=rows)


def changed(checkpoint, **sections):
    """Write the config with fields of sections replaced."""
    record = yaml.safe_load((checkpoint / "config.yaml").read_text())
    for section, fields in sections.items():
        record[section] = record[section] | fields if isinstance(fields, dict) else fields
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(record))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"model: {mixer", "is no YAML"),
        (b"model: \xff\xfe", "is not UTF-8"),
        (BOMB.encode(), "has an anchor or alias in line 1"),
        (b"a: &a [*a]\n", "anchor or alias"),
        (b"a: !!python/object/apply:os.system ['touch trapped']\n", "has a tag in line 1"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "nests more than|exceeded maximum nesting"),
        (b"a: " + b"x" * 2**20, "is longer than"),
        (b"- 1\n", "must hold fields"),
        (b"", "must hold fields"),
        (b"model: 3\n", "has no `model`"),
        (b"a: 2001-99-99\n", "is no YAML|has no `model`"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_files_that_are_no_config_are_answered(checkpoint, content, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (checkpoint / "config.yaml").write_bytes(content)
    for read in (load_checkpoint, read_config):
        with pytest.raises(InputError, match=words):
            read(checkpoint)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"model": {"depth": 3000}}, "depth must be from 1 to 1024"),
        ({"model": {"depth": 900}}, "depth is 900, the weights have 1 blocks"),
        ({"model": {"patch_size": 0}}, "patch_size must be from 1"),
        ({"model": {"num_heads": 0}}, "num_heads must be from 1"),
        ({"model": {"window_size": 10**9}}, "window_size must be"),
        ({"model": {"embed_dim": 2**40}}, "embed_dim must be"),
        ({"model": {"embed_dim": 65536}}, "weights do not fit"),
        ({"model": {"num_classes": 1_000_000}}, "weights do not fit"),
        ({"model": {"img_size": 20000}}, "img_size must be"),
        ({"model": {"mlp_ratio": float("nan")}}, "mlp_ratio must be a number"),
        ({"model": {"embed_dim": "16"}}, "embed_dim must be a whole number"),
        ({"model": {"use_query": "yes"}}, "use_query must be true or false"),
        ({"model": {"keep": [1.5]}}, "keep must be"),
        ({"model": {"made_up": 1}}, "unknown model fields"),
        ({"model": {"mixer": ["a"]}}, "mixer must be text"),
        ({"data": 3}, "data must hold fields"),
        ({"data": {"img_size": 4096}}, "img_size must be the model's 8"),
        ({"data": {"mean": [1, 2]}}, "mean must have a number for each of 1"),
        ({"data": {"std": [0.0]}}, "std must be above 0"),
        ({"data": {"classes": {"a": 1}}}, "classes must list"),
        ({"data": {"name": "x" * 2000}}, "name must be text"),
        ({"recipe": {"sparsity": [1]}}, "sparsity must hold fields"),
        ({"seed": -1}, "seed must be"),
    ],
    ids=str,
)
def test_values_out_of_all_measure_are_named(checkpoint, sections, words):
    changed(checkpoint, **sections)
    with pytest.raises(InputError, match=words):
        load_checkpoint(checkpoint)


@pytest.fixture
def decoder(tmp_path):
    model = create_decoder("aft_local_digits", embed_dim=16, depth=1)
    data = {"name": "digits", "vocab_size": 256, "length": 64, "grid": [8, 8, 1], "unit": "pixel"}
    return save_checkpoint(tmp_path / "d", model, data=data, recipe={}, seed=0, metrics=[])


def said(path, **sections):
    """What is said of a config with fields of sections replaced, behind the file's name; the file stays as it was."""
    file = path / "config.yaml"
    whole = file.read_bytes()
    changed(path, **sections)
    with pytest.raises(InputError) as caught:
        read_config(path)
    file.write_bytes(whole)
    start = f"checkpoint {path}: config.yaml: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


def test_a_wrong_value_is_said_with_its_field_what_it_must_be_and_what_came(checkpoint):
    long = "x" * 2000
    for sections, words in (
        ({"model": 3}, "has no `model`; train it again or restore the file"),
        ({"kind": "poem"}, "kind must be one of vision, decoder, got 'poem'; update aft-lens"),
        ({"kind": [long]}, f"kind must be one of vision, decoder, got ['{78 * 'x'}; update aft-lens"),
        ({"model": {"odd": 1, "made_up": 1}}, "has unknown model fields ['made_up', 'odd']; update aft-lens"),
        ({"recipe": {3: 1}}, "recipe must hold fields, got {3: 1}"),
        ({"model": {"depth": True}}, "model.depth must be a whole number, got True"),
        ({"model": {"mlp_ratio": True}}, "model.mlp_ratio must be a number, got True"),
        ({"model": {"mlp_ratio": float("inf")}}, "model.mlp_ratio must be a number, got inf"),
        ({"model": {"use_query": 1}}, "model.use_query must be true or false, got 1"),
        ({"model": {"mixer": 3}}, "model.mixer must be text, got 3"),
        ({"model": {"heads": "map"}}, "model.heads must be texts, got 'map'"),
        ({"model": {"heads": ["map", 3]}}, "model.heads must be text, got 3"),
        ({"model": {"keep": 3}}, "model.keep must be whole numbers, got 3"),
        ({"model": {"keep": [1, 1.5]}}, "model.keep must be a whole number, got 1.5"),
        ({"data": [long]}, f"data must hold fields, got ['{78 * 'x'}"),
        ({"data": {"name": long}}, f"data.name must be text of up to 1000 characters, got '{79 * 'x'}"),
        ({"data": {"classes": "ab"}}, "data.classes must list up to 100,000 names, got 'ab'"),
        ({"data": {"classes": ["a", None]}}, "data.classes must be text of up to 1000 characters, got None"),
        ({"data": {"in_chans": 3}}, "data.in_chans must be the model's 1, got 3"),
        ({"data": {"img_size": 4096}}, "data.img_size must be the model's 8, got 4096"),
        ({"data": {"img_size": "8"}}, "data.img_size must be a whole number, got '8'"),
        ({"data": {"mean": 0.5}}, "data.mean must have a number for each of 1 channels, got 0.5"),
        ({"data": {"std": [1.0, long]}},
         f"data.std must have a number for each of 1 channels, got [1.0, '{73 * 'x'}"),
        ({"data": {"mean": ["0.5"]}}, "data.mean must be a number, got '0.5'"),
        ({"data": {"std": [0]}}, "data.std must be above 0, got [0]"),
        ({"recipe": 3}, "recipe must hold fields, got 3"),
        *(({"recipe": {name: [1]}}, f"{name} must hold fields, got [1]")
          for name in ("model", "data", "optim", "sparsity", "trainer")),
        ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
        ({"seed": -1}, "seed must be 0 or more and below 2^63, got -1"),
        ({"seed": 2**63}, f"seed must be 0 or more and below 2^63, got {2**63}"),
    ):  # fmt: skip
        assert said(checkpoint, **sections) == words


def test_a_wrong_value_of_a_decoder_is_said(decoder):
    for data, words in (
        ({"unit": ["pixel"]}, "data.unit must be text of up to 1000 characters, got ['pixel']"),
        ({"vocab_size": 255}, "data.vocab_size must be the model's 256, got 255"),
        ({"length": 63}, "data.length must be the model's 64, got 63"),
        ({"length": "64"}, "data.length must be a whole number, got '64'"),
        ({"grid": [8, 9, 1]}, "data.grid must hold the model's 64 symbols, got (8, 9, 1)"),
        ({"grid": 64}, "data.grid must be whole numbers, got 64"),
        ({"grid": [8.0, 8]}, "data.grid must be a whole number, got 8.0"),
    ):
        assert said(decoder, data=data) == words
    found = load_decoder(decoder).data
    assert found == {"name": "digits", "vocab_size": 256, "length": 64, "grid": (8, 8, 1), "unit": "pixel"}
    changed(decoder, data={"grid": [], "unit": 7})
    assert read_config(decoder).data == found | {"grid": (), "unit": "7"}


def test_values_at_the_ends_of_their_ranges_are_read(checkpoint, monkeypatch):
    monkeypatch.setattr(aft_lens.record, "MOST_CLASSES", 3)
    longest, data = "x" * 1000, {"classes": [3, 0.5, True], "mean": [-1], "std": [1e-9]}
    changed(checkpoint, data={"name": longest} | data, seed=2**63 - 1, start="elsewhere", recipe={"epochs": 3})
    found = read_config(checkpoint)
    assert (found.seed, found.start, found.recipe) == (2**63 - 1, "elsewhere", {"epochs": 3})
    assert found.data["name"] == longest
    assert found.data["classes"] == ["3", "0.5", "True"]
    assert (found.data["mean"], found.data["std"]) == ([-1], [1e-9])
    assert found.digest == hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert said(checkpoint, data={"name": longest + "x"}).startswith("data.name must be text of up to 1000 characters")
    assert said(checkpoint, data={"classes": list("abcd")}).startswith("data.classes must list up to 3 names, got ['a'")


def test_a_config_of_a_model_alone_is_read(checkpoint):
    record = yaml.safe_load((checkpoint / "config.yaml").read_text())
    (checkpoint / "config.yaml").write_text(yaml.safe_dump({"model": record["model"]}))
    found = read_config(checkpoint)
    assert (found.data, found.recipe, found.seed, found.digest, found.start) == ({}, {}, 0, None, None)
    with pytest.raises(InputError) as caught:
        found.data["mean"]
    words = "config.yaml of the checkpoint has no data.mean; train it again or restore the file"
    assert str(caught.value) == words


@given(st.binary(max_size=300), st.integers(0, 3000), st.integers(0, 300))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mutation_of_a_config_is_read_or_answered(checkpoint, found, place, length):
    file = checkpoint / "config.yaml"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole[:place] + found + whole[place + length :])
        read_config(checkpoint)
    except InputError:
        pass
    finally:
        file.write_bytes(whole)


def test_asking_for_data_that_a_record_has_not_is_answered(checkpoint):
    changed(checkpoint, data=None)
    with pytest.raises(InputError, match="data must hold fields"):
        load_checkpoint(checkpoint)
    record = yaml.safe_load((checkpoint / "config.yaml").read_text())
    (checkpoint / "config.yaml").write_text(yaml.safe_dump(record | {"data": {}}))
    with pytest.raises(InputError, match=r"has no data\.name"):
        load_checkpoint(checkpoint).data["name"]


def test_weights_that_are_not_those_that_were_saved_are_refused(checkpoint):
    file = checkpoint / "model.safetensors"
    whole, state = file.read_bytes(), load_file(file)
    for content, words in (
        (whole[:-8], "is damaged"),
        (b"", "is damaged"),
        ((2**40).to_bytes(8, "little") + whole[8:], "a list of tensors of"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "is not the file that was saved"),
    ):
        file.write_bytes(content)
        with pytest.raises(InputError, match=words):
            load_checkpoint(checkpoint)
    record = yaml.safe_load((checkpoint / "config.yaml").read_text())
    (checkpoint / "config.yaml").write_text(yaml.safe_dump({k: v for k, v in record.items() if k != "weights"}))
    for name, value, words in (
        ("head.weight", torch.full_like(state["head.weight"], torch.nan), r"NaN or infinite in head\.weight"),
        ("head.weight", state["head.weight"].half(), r"type of head\.weight: expected F32, found F16"),
        ("other", torch.zeros(2), "unexpected: other"),
    ):
        save_file(state | {name: value}, file)
        with pytest.raises(InputError, match=words):
            load_checkpoint(checkpoint)
    save_file(state, file)
    assert torch.equal(load_checkpoint(checkpoint).model.head.weight, state["head.weight"])


def test_everybody_may_read_what_was_saved(checkpoint):
    modes = {(checkpoint / part).stat().st_mode & 0o777 for part in ("model.safetensors", "config.yaml")}
    assert len(modes) == 1


def test_list_has_a_row_for_a_folder_that_cannot_be_read(checkpoint, capsys):
    bad = checkpoint.with_name("bad\x1b[31m")
    bad.mkdir()
    (bad / "model.safetensors").write_bytes(b"")
    (bad / "config.yaml").write_text(BOMB)
    worse = save_checkpoint(checkpoint.with_name("worse"), create_model("aft_conv_digits", **MODEL), data={}, recipe={},
                            seed=0, metrics=[])  # fmt: skip
    (worse / "metrics.csv").write_bytes(b"epoch,val_accuracy\n0,\xff\n")
    assert main(["list", "--root", str(checkpoint.parent)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any(str(checkpoint) in row and "50.0 %" in row for row in rows)
    assert any("bad\\x1b[31m" in row and "cannot be read" in row and "anchor or alias" in row for row in rows)
    assert any(str(worse) in row and "is not UTF-8" in row for row in rows)


def test_metrics_that_are_no_numbers_are_answered(checkpoint):
    (checkpoint / "metrics.csv").write_text("epoch,a\n0,many\n")
    with pytest.raises(InputError, match=r"metrics\.csv: could not convert"):
        read_metrics(checkpoint)


def test_a_checkpoint_left_between_two_renames_is_found_and_listed(checkpoint):
    checkpoint.rename(checkpoint.with_name(".c.old"))
    assert list_checkpoints(checkpoint.parent) == [checkpoint]
    assert load_checkpoint(checkpoint).config.depth == 1
    assert read_metrics(checkpoint)[0]["val_accuracy"] == 0.5


def test_size_bombs_take_no_memory(checkpoint):
    changed(checkpoint, model={"embed_dim": 65536, "window_size": 4095, "bias_rank": 65536, "num_classes": 10**6})
    code = (
        "import resource, sys\nfrom aft_lens.checkpoint import load_checkpoint\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    load_checkpoint(sys.argv[1])\nexcept ValueError as error:\n    print(type(error).__name__)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(checkpoint)], capture_output=True, text=True, check=True)
    kind, mebibytes = done.stdout.split()
    assert kind == "InputError"
    assert int(mebibytes) < 200


def test_json_is_read_with_limits(tmp_path):
    file = tmp_path / "x.json"
    for content, words in (("{", "is no JSON"), ("[1]", "must hold an object"), ("[" * 10**5, "is no JSON")):
        file.write_text(content)
        with pytest.raises(InputError, match=words):
            read_json(file)
    file.write_text('{"a": 1}')
    assert read_json(file) == {"a": 1}
    assert read_yaml(file) == {"a": 1}


def test_an_accuracy_on_images_of_training_is_not_called_held_out(tmp_path):
    recipe = {"data": {"held_out": False}}
    model = create_model("aft_conv_digits", **MODEL)
    rows = [{"epoch": float(epoch), "val_accuracy": 0.25 * (epoch + 1)} for epoch in range(3)]
    held = save_checkpoint(tmp_path / "held", model, data={}, recipe={}, seed=0, metrics=rows)
    seen = save_checkpoint(tmp_path / "seen", model, data={}, recipe=recipe, seed=0, metrics=rows)

    def held_out(path):
        return held_out_accuracy(read_config(path), read_metrics(path))

    assert (held_out(held), held_out(seen)) == (0.75, None)
    note_test_accuracy(seen, 0.625, 40)
    assert held_out(seen) == 0.625
    assert read_metrics(seen) == [*rows[:2], {**rows[2], "test_accuracy": 0.625}]
    assert (seen / CARD).read_text().endswith("- test_accuracy: 0.6250 on 40 images\n")


def test_what_differs_between_lists_of_tensors_is_all_said(tmp_path):
    kinds = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(4), "d": torch.zeros(5)}
    expected = {name: Entry.of(tensor) for name, tensor in kinds.items()}
    found = {"b": Entry((3,), "F16"), "c": Entry((9,), "F32"), "d": Entry((5,), "F32"), "e": Entry((), "F32")}
    assert differences(expected, found) == [
        "missing: a (2,)", "unexpected: e ()", "type of b: expected F32, found F16",
        "shape of c: expected (4,), found (9,)",
    ]  # fmt: skip
    assert numbers(expected) == 2 + 3 + 4 + 5
    assert Entry.of(torch.zeros(1, dtype=torch.complex64)).dtype == "torch.complex64"
    (tmp_path / "x.safetensors").write_bytes(b"\0" * 7)
    with pytest.raises(InputError, match=r"x\.safetensors is damaged \(.*\); train or copy it again"):
        read_tensors(tmp_path / "x.safetensors")


def test_tensors_come_in_the_order_of_their_layers(tmp_path):
    names = ["blocks.10.w", "blocks.2.w", "blocks.2.1", "blocks.a.w", "a"]
    write_tensors({name: torch.zeros(1) for name in names}, tmp_path / "x.safetensors")
    ordered = ["a", "blocks.a.w", "blocks.2.w", "blocks.2.1", "blocks.10.w"]
    assert list(read_tensors(tmp_path / "x.safetensors")) == ordered
