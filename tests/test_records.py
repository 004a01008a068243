"""config.yaml and weights from anybody: answered in words, nothing allocated or run, good ones beside them shown."""

import subprocess
import sys

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from aft_lens.checkpoint import list_checkpoints, load_checkpoint, read_config, read_metrics, save_checkpoint
from aft_lens.data import load_data
from aft_lens.errors import InputError
from aft_lens.models import create_model
from aft_lens.text_files import read_json, read_yaml
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
        (b"a: " + b"[" * 5000 + b"]" * 5000, "nests more than"),
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
