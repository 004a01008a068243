"""Every page of the app on every shipped checkpoint, on none, and on broken ones; links reproduce views."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from aft_lens.checkpoint import list_checkpoints, load_checkpoint, read_config, save_checkpoint
from aft_lens.models import create_model, directions
from analyses.bias import position_bias_maps
from app import loaders
from app.runs import find_runs, headline, read_rows
from app.serve import ROOTS_VARIABLE
from app.views.snapshots import bias_by_epoch

APP = Path(__file__).parents[1] / "app"
SHIPPED = Path(__file__).parents[1] / "checkpoints"
PAGES = ("compare", "keys", "attention", "pruning", "training", "analyses")
CHECKPOINTS = [path.name for path in list_checkpoints(SHIPPED) if not path.parent.name.startswith(".")]
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
    test = AppTest.from_file(str(APP / "screens" / f"{name}.py"), default_timeout=120)
    for key, value in query.items():
        test.query_params[key] = value
    return test.run()


def assert_well(test):
    assert not test.exception, [item.value for item in test.exception]
    assert not test.error, [item.value for item in test.error]
    assert test.title


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
    monkeypatch.setattr(loaders, "MEASURED", 16)
    monkeypatch.setattr(loaders, "BATCH", 4)
    for test in (page("compare", a=name, b=name), page("training", run=name)):
        assert_well(test)
    for where, key in (("keys", "ka"), ("attention", "vit")):
        assert_well(page(where, **{key: name}))
    pruning = page("pruning", model=name)
    found = read_config(SHIPPED / name)
    here = found.data["name"] == "digits" or Path("data", found.data["name"]).is_dir()
    if found.model.traits.indexable and not found.model.keep and not here:
        assert "is not here, and accuracy needs its classes" in pruning.error[0].value
        assert not pruning.exception
        return
    assert_well(pruning)


@pytest.mark.parametrize("name", ["conv", "single", "vit", "full", "local"])
def test_compare_takes_any_two_mixers(tiny, name):
    test = page("compare", a=name, b="vit")
    assert_well(test)
    assert test.selectbox(key="a").value == name


def test_a_mixer_without_bias_is_answered_in_words(tiny):
    test = page("compare", a="simple", b="conv")
    assert not test.exception
    assert "no position bias" in test.error[0].value


@pytest.mark.parametrize("name", ["conv", "single"])
def test_keys_of_a_sample(tiny, name):
    test = page("keys", ka=name, kb="conv", i="7")
    assert_well(test)
    assert test.slider(key="i").value == 7


def test_attention_changes_with_its_widgets(tiny):
    test = page("attention")
    assert_well(test)
    test.selectbox(key="unit").select("Attention").run()
    assert_well(test)


def test_pruning_reports_parity(tiny):
    test = page("pruning", model="conv")
    assert_well(test)
    parity = next(metric for metric in test.metric if "logit" in metric.label)
    assert float(parity.value) <= 1e-5
    assert_well(test.slider(key="keep").set_value(3).run())


def test_link_marks_a_cell(tiny):
    test = page("compare", a="conv", b="vit", cell="1.1.-2.3")
    assert_well(test)
    assert test.subheader[0].value == "Layer 1, head 1, offset Δy -2, Δx +3"


@pytest.mark.parametrize("query", [{"a": "gone", "scale": "odd"}, {"cell": "1.x"}, {"cell": "99.99.99.99"}])
def test_a_bad_link_falls_back(tiny, query):
    assert_well(page("compare", **query))


@pytest.mark.parametrize("name", PAGES)
def test_without_checkpoints_the_command_is_shown(name, tmp_path, monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    test = page(name)
    assert_well(test)
    assert "aft-lens train" in test.code[0].value


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
    if name != "training":
        assert "left out" in test.warning[0].value
        assert "damaged" in test.error[0].value


def test_replaced_checkpoint_is_read_again(tiny_root, tmp_path, monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    shutil.copytree(tiny_root / "conv", tmp_path / "model")
    before = page("compare", a="model", b="model", cell="0.0.0.0").markdown[0].value
    shutil.copy(tiny_root / "conv" / "card.md", tmp_path / "model" / "card.md")
    torch.manual_seed(5)
    model = create_model("aft_conv_digits", depth=2, embed_dim=16, num_heads=2)
    for key, parameter in model.named_parameters():
        if key.endswith("gamma"):
            torch.nn.init.constant_(parameter, 2.0)
    save_checkpoint(tmp_path / "model", model, data=DIGITS, recipe={}, seed=5, metrics=[])
    assert page("compare", a="model", b="model", cell="0.0.0.0").markdown[0].value != before


def test_main_lists_every_page(tiny):
    test = AppTest.from_file(str(APP / "main.py"), default_timeout=120).run()
    assert_well(test)
    for name in PAGES[1:]:
        assert_well(test.switch_page(f"screens/{name}.py").run())


def test_upload_is_read_and_refused_in_words(tiny):
    test = page("keys", image="Upload")
    assert_well(test)
    uploader = test.get("file_uploader")[0]
    uploader.set_value(("note.txt.png", b"I am no image", "image/png")).run()
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


def test_what_pruning_measured_belongs_to_the_last_epoch(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,val_accuracy,entropy/mean,train_entropy_sum,test_accuracy\n"
                                          "0,0.4,3.0,9.0,\n1,0.5,2.0,6.0,\n,,,,0.6\n")  # fmt: skip
    rows = read_rows(tmp_path)
    assert [row["epoch"] for row in rows] == [0.0, 1.0]
    assert rows[-1]["test_accuracy"] == 0.6
    assert ("Epochs", "2 of 2") in headline(rows, 2)
    assert ("Entropy mean", "2.00 nats") in headline(rows, 2)


def test_biases_of_a_run_are_those_its_model_uses(monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(SHIPPED))
    for run in (find_runs([SHIPPED])[name] for name in ("digits-single", "digits-conv")):
        kept = bias_by_epoch(loaders.snapshots(str(run.path), run.written), run.label, single=run.single)
        maps = position_bias_maps(load_checkpoint(run.path).model).maps
        np.testing.assert_allclose(kept[max(kept)].values, maps, rtol=1e-4, atol=1e-5)


def test_a_cell_outside_the_frame_is_not_taken(tiny):
    inside, outside = (page("compare", a="conv", b="vit", cell=cell) for cell in ("0.0.1.1", "0.0.99.99"))
    assert inside.subheader[0].value == "Layer 0, head 0, offset Δy +1, Δx +1"
    assert "99" not in outside.subheader[0].value
    assert_well(page("keys", ka="conv", kb="conv", **{"key-left": "0.0.12.1"}))


def test_images_are_numbered_by_the_smaller_data_set(monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(SHIPPED))
    test = page("keys", ka="cifar10-conv", kb="digits-single", i="31")
    assert_well(test)
    assert test.slider[0].max <= 359


def test_pages_open_on_the_shipped_models_where_runs_have_their_names_too(monkeypatch, tmp_path):
    shutil.copytree(SHIPPED / "digits-vit", tmp_path / "cifar10-vit")
    monkeypatch.setenv(ROOTS_VARIABLE, os.pathsep.join([str(SHIPPED), str(tmp_path)]))
    test = page("compare")
    assert [box.value for box in test.selectbox][:2] == ["cifar10-conv", "checkpoints/cifar10-vit"]
    assert len({entry.path.parent for entry in loaders.catalogue().values() if entry.path.name == "cifar10-vit"}) == 2


def test_a_model_too_pale_for_the_shared_scale_is_named(monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(SHIPPED))
    shared, each = (
        page("compare", a="cifar10-conv", b="cifar10-vit", scale=scale) for scale in ("Shared", "Each model")
    )
    told = [
        [caption.value for caption in test.caption if "cifar10-vit is pale" in caption.value] for test in (shared, each)
    ]
    assert [len(captions) for captions in told] == [1, 0]


def test_maps_that_are_the_start_are_named(tmp_path, monkeypatch):
    model = create_model("aft_conv_digits", depth=2, embed_dim=16, num_heads=2)
    started = {"data": DIGITS, "recipe": {}, "seed": 0, "metrics": [], "first": directions(model)}
    save_checkpoint(tmp_path / "drawn", model, **started)
    for block in model.blocks:
        block.mixer.position_bias.redraw()
    save_checkpoint(tmp_path / "learned", model, **started)
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    test = page("compare", a="drawn", b="learned")
    assert_well(test)
    captions = [caption.value for caption in test.caption]
    assert "drawn: mostly their random start (|r| with the start 1.00)." in captions
    assert any(caption.startswith("learned: made by training") for caption in captions)


def test_samples_stand_for_data_that_is_not_to_be_had(tmp_path, monkeypatch):
    def offline(name, **_):
        raise FileNotFoundError(f"data set {name} is not here")

    shutil.copytree(SHIPPED / "cifar10-single-96-indexed", tmp_path / "indexed")
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    monkeypatch.setattr(loaders, "load_data", offline)
    loaders.data.clear()
    test = page("keys", ka="indexed", i="31")
    assert_well(test)
    assert any("32 photographs without classes" in caption.value for caption in test.caption)
    loaders.data.clear()
