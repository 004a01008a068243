"""The app's page of decoders: completions of two, where they look, none at all, damaged ones."""

import time

import pytest
import torch
from safetensors.torch import save
from streamlit.testing.v1 import AppTest
from test_app import APP, assert_well, jobs, page

from aft_lens.checkpoint import SHIPPED, load_decoder, save_checkpoint
from aft_lens.data.sequences import load_kept_sequences, load_sequences, save_sequences
from aft_lens.errors import InputError
from aft_lens.models import create_decoder
from app.back import lines
from app.back.work import decoding, finish
from app.places import ROOTS_VARIABLE
from app.words import marked

pytestmark = pytest.mark.filterwarnings("default")
__all__ = ["jobs"]
SMALL = {"embed_dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Untrained decoders of digits and of a text that is kept beside its decoder."""
    torch.manual_seed(0)
    (tmp_path / "text.txt").write_text("<b>what</b> *is* written " * 80)
    text, digits = load_sequences(f"text:{tmp_path}/text.txt", length=24), load_sequences("digits")
    found = tmp_path / "root"
    for name, model, data in (
        ("local", create_decoder("aft_local_digits", **SMALL), digits),
        ("transformer", create_decoder("transformer_digits", **SMALL), digits),
        ("text", create_decoder("aft_local_text", length=24, **SMALL), text),
        ("bare", create_decoder("aft_local_text", length=24, **SMALL), text),
    ):
        save_checkpoint(found / name, model, data=data.record(), recipe={}, seed=0, metrics=[])
    save_sequences(text, found / "text")
    monkeypatch.setenv(ROOTS_VARIABLE, str(found))
    return found


def whole(first, second, **more):
    """The page when no job of it goes on any more."""
    end = time.monotonic() + 180
    while True:
        test = page("decoders", da=first, db=second, **more)
        if not any(button.label == "Cancel" for button in test.button):
            return test
        assert time.monotonic() < end, "a job does not end"


def test_two_decoders_complete_side_by_side(root):
    test = whole("local", "transformer", given="30", seed="3")
    assert_well(test)
    assert any("--keep 0.3 --temperature 1 --seed 3" in block.value for block in test.code)
    assert any("has no position biases" in caption.value for caption in test.caption)


def test_text_is_shown_as_it_is(root):
    test = whole("text", "local")
    assert_well(test)
    shown = [block.value for block in test.markdown]
    assert any("written" in value or "what" in value for value in shown)
    assert not any("<b>" in value.replace("\\<", "") for value in shown)


def test_text_without_its_own_sequences_opens_no_file(root):
    test = whole("bare", "local")
    assert not test.exception
    assert "opens no file but those of checkpoints" in test.error[0].value


def test_kept_sequences_are_the_test_text(root):
    record = {"name": "text:x", "vocab_size": 256, "length": 24, "grid": (), "unit": "character"}
    kept = load_kept_sequences(record, root / "text")
    whole = load_sequences(f"text:{root.parent}/text.txt", length=24)
    assert torch.equal(kept.test.symbols, whole.test.symbols[: 32 * 24])
    with pytest.raises(FileNotFoundError, match="keeps no sequences"):
        load_kept_sequences(record, root / "bare")


@pytest.mark.parametrize(
    "kept",
    [
        {"other": torch.zeros(999, dtype=torch.uint8)},
        {"test": torch.zeros((), dtype=torch.uint8)},
        {"test": torch.zeros(0, dtype=torch.uint8)},
        {"test": torch.zeros(99, 24, dtype=torch.uint8)},
        {"test": torch.full((999,), 300)},
        {"test": torch.zeros(999)},
    ],
)
def test_kept_sequences_that_are_not_the_models_are_answered(kept, tmp_path):
    (tmp_path / "sequences.safetensors").write_bytes(save(kept))
    record = {"name": "text:x", "vocab_size": 256, "length": 24, "grid": (), "unit": "character"}
    with pytest.raises(InputError, match="does not hold sequences of 24 symbols from 0 to 255; copy it again"):
        load_kept_sequences(record, tmp_path)
    few = torch.full((9, 24), 20, dtype=torch.uint8)
    (tmp_path / "sequences.safetensors").write_bytes(save({"test": few}))
    with pytest.raises(InputError, match="symbols from 0 to 16"):
        load_kept_sequences({**record, "vocab_size": 17, "grid": (4, 6)}, tmp_path)


@pytest.mark.parametrize("name", ["folder:/", "images:/etc", "text:/etc/passwd"])
def test_a_decoders_record_leads_to_no_file(name, tmp_path):
    model = create_decoder("aft_local_digits", **SMALL)
    data = load_sequences("digits").record() | {"name": name}
    found = load_decoder(save_checkpoint(tmp_path / "one", model, data=data, recipe={}, seed=0, metrics=[]))
    with pytest.raises(FileNotFoundError, match="a page opens no file but those of checkpoints"):
        decoding._sequences(found)


def test_without_decoders_the_command_is_shown(tmp_path, monkeypatch):
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    test = page("decoders")
    assert_well(test)
    assert "aft-lens train --recipe digits-pixels-aft-local" in test.code[0].value


def test_other_pages_leave_decoders_out(root):
    for name in ("compare", "attention", "pruning", "analyses"):
        test = page(name)
        assert_well(test)
        assert "aft-lens train" in test.code[0].value


def test_damaged_decoders_are_answered_in_words(root):
    (root / "local" / "model.safetensors").write_bytes(b"damaged")
    test = page("decoders", da="local", db="transformer")
    assert not test.exception
    assert any("damaged" in item.value for item in (*test.error, *test.warning))
    assert_well(AppTest.from_file(str(APP / "main.py"), default_timeout=120).run())


def test_what_was_drawn_is_bold_wherever_it_begins():
    assert marked("In the begin", "ning ") == "In the begin\u200a**ning**"
    assert marked("And God ", "said, ") == marked("And God", " said,") == "And God **said,**"
    assert marked("a*", "  ") == "a\\*"


def test_the_command_of_a_model_that_ships_names_it(monkeypatch, tmp_path):
    told = []
    made = lines.locality([str(SHIPPED / "digits-conv"), str(tmp_path / "own")], "", 16)
    finish(lambda *words: told.append(words), str(tmp_path), None, {}, made)
    assert told[-1][2]["command"][:4] == ["aft-lens", "locality", "digits-conv", str(tmp_path / "own")]
    assert "('digits-conv', True)" in told[-1][2]["python"]
