"""What a checkpoint's folder holds, how it is found, and what is said where it does not hold it."""

import hashlib
import json
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from safetensors.torch import load_file, save_file

import aft_lens
import aft_lens.checkpoint as place
from aft_lens.checkpoint import (
    SHIPPED,
    Checkpoint,
    checkpoint_folder,
    checkpoint_names,
    commit,
    held_out_accuracy,
    list_checkpoints,
    load_any,
    load_checkpoint,
    load_decoder,
    read_config,
    read_first,
    read_metrics,
    read_snapshots,
    revision,
    save_checkpoint,
    taken_as,
    versions,
    weight_differences,
)
from aft_lens.errors import InputError
from aft_lens.models import create_decoder, create_model

DATA = {"name": "digits", "classes": ["ä", "b"], "in_chans": 1}
ROWS = [{"epoch": 0, "val_accuracy": 0.25, "a,b": 1.5}, {"epoch": 1, "val_accuracy": 0.5, "loss": 0.123456}]


def small(**fields):
    return create_model("aft_conv_digits", **{"depth": 1, "embed_dim": 16, "num_heads": 2} | fields)


def saved(path, model=None, **fields):
    fields = {"data": DATA, "recipe": {"epochs": 2}, "seed": 7, "metrics": ROWS} | fields
    return save_checkpoint(path, small() if model is None else model, **fields)


def decoder():
    return create_decoder("aft_local_digits", depth=1, embed_dim=16)


def message(kind, call, *arguments):
    with pytest.raises(kind) as caught:
        call(*arguments)
    return str(caught.value)


def test_a_folder_says_what_it_was_made_from(tmp_path):
    model = small()
    path = saved(tmp_path / "one", model, start="digits-conv")
    assert path == tmp_path / "one"
    assert {file.name for file in path.iterdir()} == {"model.safetensors", "config.yaml", "metrics.csv", "card.md"}
    text = (path / "config.yaml").read_text(encoding="utf-8")
    assert "- ä\n" in text, "words as people read them"
    record = yaml.safe_load(text)
    assert list(record) == ["model", "data", "recipe", "seed", "start", "versions", "commit", "weights"]
    assert record["data"] == DATA
    assert (record["recipe"], record["seed"], record["start"]) == ({"epochs": 2}, 7, "digits-conv")
    assert record["versions"] == versions()
    assert record["commit"] == commit()
    assert record["weights"] == hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    assert (path / "metrics.csv").read_bytes() == (
        b'epoch,val_accuracy,"a,b",loss\r\n0,0.25,1.5,\r\n1,0.5,,0.123456\r\n'
    )  # as RFC 4180 has it
    assert (path / "card.md").read_text(encoding="utf-8") == (
        "# one\n\n- mixer: aft_conv, depth 1, width 16, heads 2\n- data: digits\n- seed: 7\n- start: digits-conv\n"
        "- epoch: 1\n- val_accuracy: 0.5\n- loss: 0.1235\n"
    )
    found = load_checkpoint(path)
    assert (found.path, found.config, found.recipe, found.seed) == (path, model.config, {"epochs": 2}, 7)
    assert found.data == DATA
    assert not found.model.training
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in found.model.state_dict().items())


def test_what_was_not_recorded_is_left_out_and_what_stands_twice_is_written_twice(tmp_path):
    path = saved(tmp_path / "one", data={}, recipe={"a": DATA["classes"], "b": DATA["classes"]}, metrics=[])
    assert "start" not in yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    assert (path / "card.md").read_text() == (
        "# one\n\n- mixer: aft_conv, depth 1, width 16, heads 2\n- data: unknown\n- seed: 7\n"
    )
    assert repr(load_checkpoint(path)).endswith(", data unknown")
    assert read_config(path).recipe == {"a": ["ä", "b"], "b": ["ä", "b"]}
    assert (read_metrics(path), read_snapshots(path), read_first(path)) == ([], {}, {})
    assert (saved(tmp_path / "two", card="as I say: ä") / "card.md").read_text(encoding="utf-8") == "as I say: ä"


def test_a_model_made_from_another_is_saved_with_where_it_is_from(tmp_path):
    loaded = load_checkpoint(saved(tmp_path / "one"))
    with torch.no_grad():
        loaded.model.head.bias.fill_(3)
    same, other = loaded.save(tmp_path / "same"), loaded.save(tmp_path / "other", small(depth=2))
    assert (load_checkpoint(same).model.head.bias == 3).all()
    assert load_checkpoint(other).config.depth == 2
    found = read_config(other)
    assert (found.data, found.recipe, found.seed, found.start) == (DATA, {"epochs": 2}, 7, str(tmp_path / "one"))
    assert read_metrics(other) == []
    assert message(FileExistsError, loaded.save, same) == f"{same} exists; remove it or choose another path"


def test_models_are_shown_in_a_line(tmp_path):
    for model, words in ((small(), "aft_conv, 1 layers x 2 heads"), (decoder(), "aft_local, 1 layers x 4 heads")):
        path = saved(tmp_path / model.config.mixer, model, data={"name": "digits"})
        weights = sum(parameter.numel() for parameter in model.parameters())
        assert repr(load_any(path)) == f"{path}: {words}, width 16, {weights:,} weights, data digits"
    assert repr(load_checkpoint("digits-conv")).startswith("digits-conv: aft_conv, 3 layers x 8 heads, width 64, ")


def test_decoders_and_vision_models_are_told_apart(tmp_path):
    vision = saved(tmp_path / "vision")
    path = saved(tmp_path / "decoder", decoder(), data={"name": "digits", "length": 64})
    record = yaml.safe_load((path / "config.yaml").read_text())
    assert record["kind"] == "decoder"
    assert "kind" not in yaml.safe_load((vision / "config.yaml").read_text())
    found = load_decoder(path)
    assert (found.path, found.config.length, found.recipe, found.seed) == (path, 64, {"epochs": 2}, 7)
    assert found.data == {"name": "digits", "length": 64}
    assert isinstance(load_any(vision), Checkpoint)
    assert message(InputError, load_checkpoint, path) == (
        f"checkpoint {path} is a decoder, which this does not take; `aft-lens evaluate`, `sample`, `complete` and "
        "`decoder` do, and load_decoder from Python"
    )
    assert message(InputError, load_decoder, vision) == (
        f"checkpoint {vision} is a vision model, which this does not take; give a decoder"
    )
    for load, of in ((load_checkpoint, vision), (load_decoder, path), (load_any, vision)):
        assert "device 'nowhere' cannot be used here" in message(ValueError, load, of, "nowhere")
        assert {part.device.type for part in load(of, "meta").model.parameters()} == {"meta"}
        assert {part.device.type for part in load(of).model.parameters()} == {"cpu"}
    (path / "model.safetensors").write_bytes((vision / "model.safetensors").read_bytes())
    assert "expected (1, 64, 16), found ()" in message(InputError, load_decoder, path)


def test_weights_that_do_not_fit_are_said_line_by_line(tmp_path):
    path = saved(tmp_path / "one", small(mixer="attention"))
    file = path / "model.safetensors"
    state = load_file(file)
    start = f"checkpoint {path}: weights do not fit config.yaml:\n  "
    shape = tuple(state["pos_embed"].shape)

    def said(state):
        save_file(state, file)
        return message(InputError, load_checkpoint, path).removeprefix(start)

    without = {name: tensor for name, tensor in state.items() if name != "pos_embed"}
    assert said(without) == f"shape of pos_embed: expected {shape}, found ()"
    assert said(state | {"pos_embed": torch.zeros(1, 2, 16)}) == (
        f"shape of pos_embed: expected {shape}, found (1, 2, 16)"
    )
    assert said(state | {"blocks.1.x": torch.zeros(1), "block.2.x": torch.zeros(1)}) == (
        "depth is 1, the weights have 2 blocks"
    )
    odd = state | {"a": torch.zeros(2), "head.bias": torch.zeros(3)}
    assert said(odd) == "unexpected: a (2,)\n  shape of head.bias: expected (10,), found (3,)"


def test_weights_that_are_not_finite_are_named_and_no_more_than_three(tmp_path):
    path = saved(tmp_path / "one")
    record = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump({key: record[key] for key in record if key != "weights"}))
    state = load_file(path / "model.safetensors")
    names = sorted(state)[:4]
    for name, value in zip(names, (torch.nan, torch.inf, -torch.inf, torch.nan)):
        state[name].flatten()[-1:] = value
    save_file(state, path / "model.safetensors")
    found = message(InputError, load_checkpoint, path)
    start, end = f"checkpoint {path}: weights that are NaN or infinite in ", found.partition(": its training")[2]
    assert end == " diverged, or the file is damaged; train or copy it again"
    named = found.removeprefix(start).partition(": ")[0].split(", ")
    assert len(named) == 3
    assert set(named) < set(names)


def test_a_part_that_is_missing_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, "SHIPPED", tmp_path / "shipped")
    path = saved(tmp_path / "one")
    (path / "model.safetensors").unlink()
    start = f"checkpoint {path} has no model.safetensors; "
    assert message(FileNotFoundError, load_checkpoint, path) == start + "these have: none (`aft-lens list` says more)"
    saved(tmp_path / "runs" / "a")
    saved(tmp_path / "shipped" / "b")
    assert message(FileNotFoundError, load_checkpoint, path) == start + "these have: a, b (`aft-lens list` says more)"
    for content, word in (({"architecture": "vit"}, "timm:local-dir:"), ({"model_type": "vit"}, "hf:")):
        (path / "config.json").write_text(json.dumps(content))
        assert message(FileNotFoundError, load_checkpoint, path) == (
            f"{start}it is another library's: give it as {word}{path}, to a command that reads such models"
        )
    (path / "adapter_config.json").write_text("{}")
    assert message(FileNotFoundError, load_checkpoint, path) == (
        f"{start}it holds an adapter (LoRA) of peft; merge it into its model, save the whole, and give that as hf:PATH"
    )
    saved(path)
    (path / "config.yaml").unlink()
    assert message(FileNotFoundError, load_checkpoint, path).startswith(f"checkpoint {path} has no config.yaml; these")


def test_checkpoints_have_names_where_they_ship_and_where_they_are_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, "SHIPPED", tmp_path / "shipped")
    assert checkpoint_names() == []
    assert message(FileNotFoundError, load_checkpoint, "own") == (
        "there is no checkpoint 'own'. Names that are known here: none; others are given by their folder "
        "(`aft-lens list` says more)"
    )
    for folder in ("shipped/own", "checkpoints/own", "checkpoints/second", "runs/second", "runs/.third.old"):
        saved(tmp_path / folder)
    (tmp_path / "runs" / "no-model").mkdir()
    assert checkpoint_names() == ["own", "second", "third"]
    assert checkpoint_folder("own") == tmp_path / "shipped" / "own"
    assert checkpoint_folder("second") == Path("checkpoints/second")
    assert checkpoint_folder("third") == Path("runs/third")
    assert load_checkpoint("third").path == Path("runs/third")
    for name in ("fourth", "elsewhere/own", "./runs/second"):
        assert checkpoint_folder(name) == Path(name)
    saved(tmp_path / "own")
    assert checkpoint_folder("own") == Path("own"), "what one stands in goes first"
    assert message(FileNotFoundError, load_checkpoint, "secnd") == (
        "there is no checkpoint 'secnd'; did you mean second? Names that are known here: own, second, third; others "
        "are given by their folder (`aft-lens list` says more)"
    )
    assert taken_as("shipped/own") == "shipped/own"
    assert taken_as(tmp_path / "shipped" / "own") == "own"


def test_every_folder_with_weights_and_a_config_is_listed_in_order(tmp_path):
    for folder in ("b", "a/deep", ".c.old", ".d.writing", "e", "f"):
        saved(tmp_path / folder)
    (tmp_path / "e" / "model.safetensors").unlink()
    (tmp_path / "f" / "config.yaml").unlink()
    assert list_checkpoints(tmp_path) == [tmp_path / "a" / "deep", tmp_path / "b", tmp_path / "c"]
    assert list_checkpoints(tmp_path / "absent") == []


def test_metrics_are_numbers_and_blanks_are_left_out(tmp_path):
    path = saved(tmp_path / "one")
    assert read_metrics(path) == ROWS
    (path / "metrics.csv").write_text("epoch,loss\n0,many\n")
    assert message(InputError, read_metrics, path) == (
        f"{path}/metrics.csv: could not convert string to float: 'many'; restore the file"
    )


@pytest.mark.parametrize(
    ("recipe", "rows", "expected"),
    [
        ({}, [{"val_accuracy": 0.5}, {"val_accuracy": 0.75}, {"loss": 1.0}], 0.75),
        ({"data": {}}, [{"test_accuracy": 0.25}, {"val_accuracy": 0.75}], 0.25),
        ({"data": {"held_out": True}}, [{"val_accuracy": 0.0}], 0.0),
        ({"data": {"held_out": False}}, [{"val_accuracy": 0.75}], None),
        ({"data": {"held_out": False}}, [{"val_accuracy": 0.75, "test_accuracy": 0.5}], 0.5),
        ({}, [], None),
    ],
)
def test_the_accuracy_that_counts_is_on_images_not_trained_on(tmp_path, recipe, rows, expected):
    record = read_config(saved(tmp_path / "one", recipe=recipe))
    assert held_out_accuracy(record, rows) == expected


def test_snapshots_are_read_by_epoch_and_the_start_apart(tmp_path):
    at = {epoch: {"w": torch.full((2,), float(epoch))} for epoch in (2, 10, 12345)}
    path = saved(tmp_path / "one", snapshots=at, first={"w": torch.ones(2)})
    assert sorted(file.name for file in (path / "snapshots").iterdir()) == [
        "0002.safetensors", "0010.safetensors", "12345.safetensors", "start.safetensors",
    ]  # fmt: skip
    (path / "snapshots" / "1x.safetensors").write_bytes(b"")
    found = read_snapshots(path)
    assert list(found) == [2, 10, 12345]
    assert all(torch.equal(found[epoch]["w"], at[epoch]["w"]) for epoch in at)
    assert torch.equal(read_first(path)["w"], torch.ones(2))
    path.rename(tmp_path / ".one.old")  # a process was killed between two renames
    assert list(read_snapshots(path)) == [2, 10, 12345]
    assert list(read_first(path)) == ["w"]


def test_a_revision_follows_weights_and_config(tmp_path):
    path = saved(tmp_path / "one")
    first = revision(path)
    parts = [(path / name).read_bytes() for name in ("model.safetensors", "config.yaml")]
    assert first == hashlib.sha256(b"".join(parts)).hexdigest()[:12]
    (path / "card.md").write_text("other words")
    assert revision(path) == first
    for name, content in zip(("model.safetensors", "config.yaml"), parts):
        (path / name).write_bytes(content + b"\n")
        assert revision(path) != first
        (path / name).write_bytes(content)


def test_versions_are_those_that_run():
    found = versions()
    assert list(found) == ["aft_lens", "python", "torch", "torchvision"]
    assert (found["aft_lens"], found["python"]) == (aft_lens.__version__, platform.python_version())
    assert found["torch"] == torch.__version__
    assert torchvision.__version__.startswith(found["torchvision"].partition("+")[0])


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_the_checkouts_and_unknown_elsewhere(tmp_path, monkeypatch, capfd):
    source = tmp_path / "checkout" / "checkpoint.py"
    source.parent.mkdir()
    monkeypatch.setattr(place, "__file__", str(source))
    assert commit() == "unknown"
    git = ["git", "-C", str(source.parent), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "one"], check=True)
    head = source.parent / ".git" / "HEAD"
    assert commit() == (source.parent / ".git" / head.read_text().split()[-1]).read_text().strip()
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown"
    assert capfd.readouterr() == ("", ""), "git says nothing to the user"


def test_differences_between_weights_are_lines():
    expected = {"a": torch.zeros(2), "b": torch.zeros(2)}
    assert weight_differences(expected, expected) == []
    assert weight_differences(expected, {"a": torch.zeros(3), "c": torch.zeros(1)}) == [
        "missing: b (2,)", "unexpected: c (1,)", "shape of a: expected (2,), found (3,)",
    ]  # fmt: skip


def test_shipped_checkpoints_are_found_by_name():
    assert checkpoint_folder("digits-conv") == SHIPPED / "digits-conv"
    assert "digits-conv" in checkpoint_names()
    assert taken_as(SHIPPED / "digits-conv") == "digits-conv"
