"""Every page of the app on every shipped checkpoint, on none, and on broken ones; links reproduce views."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.runtime.forward_msg_queue import ForwardMsgQueue
from streamlit.testing.v1 import AppTest, local_script_runner

from aft_lens.checkpoint import list_checkpoints, load_checkpoint, read_config, save_checkpoint
from aft_lens.models import ModelConfig, create_model, directions
from analyses.bias import position_bias_maps
from app import loaders, trainings
from app.back import shelf
from app.places import JOBS_VARIABLE, ROOTS_VARIABLE, WRITE_VARIABLE
from app.runs import find_runs, headline, read_rows
from app.views.snapshots import bias_by_epoch
from app.views.training import curves

APP = Path(__file__).parents[1] / "app"
SHIPPED = Path(__file__).parents[1] / "checkpoints"
PAGES = ("overview", "compare", "attention", "keys", "decoders", "knockout", "pruning", "training", "analyses")
CHECKPOINTS = [
    path.name for path in list_checkpoints(SHIPPED)
    if not path.parent.name.startswith(".") and isinstance(read_config(path).model, ModelConfig)
]  # fmt: skip
DIGITS = {
    "name": "digits",
    "classes": [str(i) for i in range(10)],
    "mean": [0.3],
    "std": [0.37],
    "in_chans": 1,
    "img_size": 8,
}
pytestmark = pytest.mark.filterwarnings("default")
"""Streamlit's own threads warn (missing script context, deprecated calls); the app's errors are asserted on instead."""


def page(name, **query):
    test = AppTest.from_file(str(APP / "main.py"), default_timeout=120)
    for key, value in query.items():
        test.query_params[key] = value
    return test.switch_page(f"screens/{name}.py").run()


def assert_well(test):
    assert not test.exception, [item.value for item in test.exception]
    assert not test.error, [item.value for item in test.error]
    assert test.title


def said(test):
    return " ".join(item.value for item in (*test.warning, *test.info, *test.caption))


@pytest.fixture(autouse=True)
def jobs(tmp_path, monkeypatch):
    """A folder of its own for results of jobs."""
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path / "jobs"))
    shelf.folder.cache_clear()
    yield
    shelf.folder.cache_clear()


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory):
    """Untrained checkpoints of every mixer, with biases that are not all zero."""
    root = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    rows = [{"epoch": i, "train_loss": 2.0 - i / 4, "val_accuracy": i / 4, "entropy": 3.0 - i} for i in range(3)]
    small = {"depth": 2, "embed_dim": 16, "num_heads": 2}
    models = {
        "conv": create_model("aft_conv_digits", **small),
        "single": create_model("aft_conv_digits", position_bias="single", **small),
        "vit": create_model("vit_digits", **small),
        "full": create_model("aft_full_digits", **small | {"num_heads": 1}),
        "local": create_model("aft_full_digits", mixer="aft_local", **small | {"num_heads": 1}),
        "simple": create_model("aft_full_digits", mixer="aft_simple", **small | {"num_heads": 1}),
    }
    for name, model in models.items():
        for key, parameter in model.named_parameters():
            if key.endswith("gamma"):
                torch.nn.init.normal_(parameter)
        save_checkpoint(root / name, model, data=DIGITS, recipe={"epochs": 3}, seed=0, metrics=rows)
    return root


@pytest.fixture
def tiny(tiny_root, monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(tiny_root))
    return tiny_root


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_no_page_fails_on_a_shipped_checkpoint(name, monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(SHIPPED))
    for where in ("compare", "attention", "keys", "knockout"):
        assert_well(page(where, a=name, b=name))
    assert_well(page("training", runs=name))
    found = read_config(SHIPPED / name).model
    if found.traits.indexable and not found.keep:
        test = page("pruning", a=name, b=name, keep="1", by="magnitude")
        assert not test.exception
        assert test.multiselect


def places_unknown(messages):
    """Paths of what is drawn below or beside something that was not drawn before, as a browser goes through them."""
    children, unknown = {}, []
    for message in messages:
        if not message.HasField("delta"):
            continue
        path = tuple(message.metadata.delta_path)
        for depth in range(1, len(path)):
            known = children.setdefault(path[:depth], 0)
            if path[depth] > known:
                unknown.append(path)
                break
            if depth == len(path) - 1:
                children[path[:depth]] = max(known, path[depth] + 1)
    return unknown


@pytest.mark.parametrize("name", ["compare", "pruning", "training", "keys"])
def test_parts_drawn_again_before_the_browser_had_them_move_nothing_else(name, tiny, monkeypatch):
    """Streamlit drops what a fragment has sent and is still in the queue when it starts the fragment again."""
    queues = []
    read = local_script_runner.parse_tree_from_messages
    monkeypatch.setattr(
        local_script_runner, "parse_tree_from_messages", lambda messages: queues.append([*messages]) or read(messages)
    )
    assert_well(page(name, a="conv", b="single", keep="1", by="magnitude", runs="conv"))
    sent = queues[-1]
    parts = {message.delta.fragment_id for message in sent if message.HasField("delta")} - {""}
    assert parts
    assert not places_unknown(sent)
    queue = ForwardMsgQueue()
    queue._queue = sent
    queue.clear(retain_lifecycle_msgs=True, fragment_ids_this_run=[*parts])
    assert len(queue) < len(sent)
    assert not places_unknown(queue._queue)


@pytest.mark.parametrize("name", ["conv", "single", "vit", "full", "local"])
def test_compare_takes_any_two_mixers(tiny, name):
    test = page("compare", a=name, b="vit")
    assert_well(test)
    assert [box.value for box in test.selectbox[:2]] == [name, "vit"]


def test_a_mixer_without_bias_is_answered_in_words(tiny):
    test = page("compare", a="simple", b="conv")
    assert not test.exception
    assert "no position bias" in test.error[0].value
    for name in ("keys", "attention"):
        assert "simple is" in said(page(name, a="simple", b="conv"))


def test_a_link_is_followed_and_becomes_whole(tiny):
    test = page("keys", a="conv", b="single", image="7", layer="1")
    assert_well(test)
    assert test.number_input[0].value == 7
    assert test.query_params["layer"] == "1"
    assert test.query_params["scale"] == "own"


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"a": "gone", "scale": "odd"}, "scale must be one of"),
        ({"layer": "1.x"}, "layer must be a whole number"),
        ({"a": "../../etc"}, "may not be shown here"),
        ({"layer": "99", "head": "99", "offset": "99.99"}, "is in neither model"),
    ],
)
def test_a_bad_link_is_answered_and_put_right(tiny, query, words):
    test = page("compare", b="conv", **query)
    assert_well(test)
    assert words in said(test)
    again = page("compare", **dict(test.query_params))
    assert not again.warning


def test_two_models_are_chosen_that_differ(tiny):
    test = page("overview")
    assert_well(test)
    assert test.selectbox[0].value != test.selectbox[1].value
    assert all(one in test.table[0].value.to_string() for one in ("conv", "simple", "ViT"))


def test_another_model_is_words_where_it_cannot_be_had(tiny):
    test = page("overview")
    test.text_input(key="other model").set_value("timm:vit_nothing").run()
    test = test.button[0].click().run()
    assert_well(test)
    assert "timm has no model of that name" in said(test)


@pytest.mark.parametrize("name", PAGES)
def test_without_checkpoints_the_command_is_shown(name, tmp_path, monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    test = page(name)
    assert_well(test)
    assert any("aft-lens train" in code.value for code in test.code)


@pytest.mark.parametrize("name", PAGES)
def test_broken_checkpoints_are_answered_in_words(name, tiny_root, tmp_path, monkeypatch):
    for broken in ("conv", "vit"):
        shutil.copytree(tiny_root / broken, tmp_path / broken)
        (tmp_path / broken / "model.safetensors").write_bytes(b"damaged")
    shutil.copytree(tiny_root / "single", tmp_path / "single")
    (tmp_path / "single" / "config.yaml").write_text("- no\n- mapping\n")
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    test = page(name)
    assert not test.exception
    assert not test.error
    if name != "training":
        assert sum("left out" in item.value for item in test.warning) == 3


def test_replaced_checkpoint_is_read_again(tiny_root, tmp_path, monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    shutil.copytree(tiny_root / "conv", tmp_path / "model")
    before = loaders.looks(loaders.entry_of("model")).maps.values
    torch.manual_seed(5)
    model = create_model("aft_conv_digits", depth=2, embed_dim=16, num_heads=2)
    for key, parameter in model.named_parameters():
        if key.endswith("gamma"):
            torch.nn.init.constant_(parameter, 2.0)
    save_checkpoint(tmp_path / "model", model, data=DIGITS, recipe={}, seed=5, metrics=[])
    monkeypatch.setattr(loaders, "FRESH", 0.0)
    assert not np.array_equal(loaders.looks(loaders.entry_of("model")).maps.values, before)


def test_upload_is_read_and_refused_in_words(tiny):
    test = page("keys", a="conv", b="single", image="upload")
    assert_well(test)
    test.get("file_uploader")[0].set_value(("note.txt.png", b"I am no image", "image/png")).run()
    assert "not an image" in test.error[0].value


def test_run_in_progress(tmp_path, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.csv").write_text("epoch,train_loss,val_accuracy\n0,2.0,\n0,,0.5\n1,1.0,0.7\n1,")
    (run / "config.yaml").write_text("recipe:\n  trainer:\n    epochs: 4\n")
    found = find_runs([tmp_path])["run"]
    assert found.in_progress
    assert found.epochs == 4
    rows = read_rows(run)
    assert rows == [
        {"epoch": 0.0, "train_loss": 2.0, "val_accuracy": 0.5},
        {"epoch": 1.0, "train_loss": 1.0, "val_accuracy": 0.7},
    ]
    assert headline(rows, 4)[:2] == [("Epochs", "2 of 4"), ("Val accuracy", "70.0 %")]
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    assert_well(page("training"))
    for other in (1_600_000_000, 4_000_000_000):  # long ago, and before the clock was set back
        os.utime(run / "metrics.csv", (other, other))
        assert not find_runs([tmp_path])["run"].in_progress


def test_validation_images_that_are_trained_on_are_not_called_held_out(tmp_path, monkeypatch):
    run = tmp_path / "joined"
    run.mkdir()
    (run / "metrics.csv").write_text(
        "epoch,train_loss,val_loss,val_accuracy,test_accuracy\n0,2.0,1.9,0.9,\n1,1.0,0.9,1.0,0.6\n"
    )
    (run / "config.yaml").write_text("recipe:\n  data:\n    held_out: false\n  trainer:\n    epochs: 2\n")
    found = find_runs([tmp_path])["joined"]
    assert not found.held_out
    rows = read_rows(run)
    shown = headline(rows, 2, held_out=False)
    assert shown == [("Epochs", "2 of 2"), ("Test accuracy", "60.0 %"), ("Train loss", "1.000")]
    assert headline(rows, 2)[1:] == [("Test accuracy", "60.0 %"), ("Val loss", "0.900")]
    names = [trace.name for trace in curves(rows, held_out=False).data]
    assert "validation, trained on" in names
    assert "held out" not in names
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    test = page("training")
    assert_well(test)
    assert "joined trains on its validation images as well" in said(test)


def test_a_run_is_found_in_its_first_epoch(tmp_path, monkeypatch):
    state = tmp_path / "young.state"
    state.mkdir()
    (state / "events").write_text("")
    assert find_runs([tmp_path])["young"].in_progress
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    test = page("training")
    assert_well(test)
    assert "the first epoch has not ended yet" in said(test)


def test_pruning_opens_on_a_model_that_can_be_pruned_here(tmp_path, monkeypatch):
    for name in ("cifar10-single-96-indexed", "digits-vit", "digits-conv"):
        shutil.copytree(SHIPPED / name, tmp_path / name)
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    test = page("pruning", a="cifar10-single-96-indexed", b="digits-vit", keep="1", by="magnitude")
    assert_well(test)
    assert "is pruned already" in said(test)
    assert "has no position biases by offset" in said(test)
    assert "digits-conv is shown instead" in said(test)


def test_a_run_of_several_commands_ends_at_the_first_that_fails(tmp_path, monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    monkeypatch.setenv(WRITE_VARIABLE, "1")
    words = trainings.transfer_words("digits-vit", "digits-conv", "new", biases="relative", epochs=2, seed=3)
    first = str(tmp_path / "new-start")
    assert words[0][:6] == ["transfer", "digits-vit", "--to", "digits-conv", "--out", first]
    assert words[1][-2:] == ["--start", first]
    training = trainings.begin("new", [["--version"], ["nothing"], ["--version"]])
    assert training.process.wait(150) != 0
    assert training.said.count("aft-lens 0") == 1
    assert "nothing" in training.said
    (tmp_path / "new-start").mkdir()
    with pytest.raises(ValueError, match="is there already"):
        trainings.begin("new", words)


def test_what_pruning_measured_belongs_to_the_last_epoch(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,val_accuracy,entropy/mean,train_entropy_sum,test_accuracy\n"
                                          "0,0.4,3.0,9.0,\n1,0.5,2.0,6.0,\n,,,,0.6\n")  # fmt: skip
    rows = read_rows(tmp_path)
    assert [row["epoch"] for row in rows] == [0.0, 1.0]
    assert rows[-1]["test_accuracy"] == 0.6
    assert ("Epochs", "2 of 2") in headline(rows, 2)
    assert ("Entropy mean", "2.00 nats") in headline(rows, 2)


def test_biases_of_a_run_are_those_its_model_uses():
    for run in (find_runs([SHIPPED])[name] for name in ("digits-single", "digits-conv")):
        kept = loaders.snapshots(str(run.path), run.written, run.single)
        maps = position_bias_maps(load_checkpoint(run.path).model).maps
        np.testing.assert_allclose(kept[max(kept)].maps.values, maps, rtol=1e-4, atol=1e-5)
    assert bias_by_epoch({0: {}}, "empty") == {}


def test_images_are_numbered_by_the_smaller_data_set(monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(SHIPPED))
    test = page("keys", a="cifar10-conv", b="digits-single", image="31")
    assert_well(test)
    assert test.number_input[0].max <= 359


def test_pages_open_on_the_shipped_models_where_runs_have_their_names_too(monkeypatch, tmp_path):
    shutil.copytree(SHIPPED / "digits-vit", tmp_path / "cifar10-vit")
    monkeypatch.setenv(ROOTS_VARIABLE, os.pathsep.join([str(SHIPPED), str(tmp_path)]))
    test = page("overview")
    assert [box.value for box in test.selectbox][:2] == ["cifar10-conv", "checkpoints/cifar10-vit"]


def test_maps_that_are_the_start_are_named(tmp_path, monkeypatch):
    model = create_model("aft_conv_digits", depth=2, embed_dim=16, num_heads=2)
    started = {"data": DIGITS, "recipe": {}, "seed": 0, "metrics": [], "first": directions(model)}
    save_checkpoint(tmp_path / "drawn", model, **started)
    for block in model.blocks:
        block.mixer.position_bias.redraw()
    save_checkpoint(tmp_path / "learned", model, **started)
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    drawn, learned = (loaders.looks(loaders.entry_of(name)) for name in ("drawn", "learned"))
    assert drawn.note == "mostly their random start (|r| with the start 1.00)"
    assert learned.note.startswith("made by training")
    assert drawn.measures["learned"].max() < 0.01 < learned.measures["learned"].min()


def test_samples_stand_for_data_that_is_not_to_be_had(tmp_path, monkeypatch):
    shutil.copytree(SHIPPED / "cifar10-single-96-indexed", tmp_path / "indexed")
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    test = page("keys", a="indexed", image="31")
    assert_well(test)
    if not Path("data", "cifar10").is_dir():
        assert "32 photographs without classes" in said(test)
