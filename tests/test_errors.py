"""What an error tells a user: words with a next step, or a defect whose traceback is kept and not shown."""

import errno
import json
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from aft_lens.data import load_data
from aft_lens.device import usable_device
from aft_lens.errors import InputError, answer, markless, printable
from aft_lens.training.run import TrainingStopped
from analyses.answered import answered, missing_module


def raised(call):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any
        call()
    return caught.value


def test_words_of_ours_and_of_the_system_are_answers_and_a_librarys_are_none():
    assert "give cpu" in answer(raised(lambda: usable_device("gpu")))
    assert answer(raised(lambda: json.loads("{"))) == ""
    assert answer(raised(lambda: {}["a"])) == ""
    assert "a file stands where a folder is needed" in answer(raised(lambda: Path(__file__, "below").read_text()))
    assert answer(OSError(errno.ENOSPC, "No space left on device", "x")) == (
        "x: No space left on device; free some space, or write elsewhere"
    )
    assert "not enough memory" in answer(raised(lambda: torch.empty(2**50)))
    assert answer(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")) == ""
    assert answer(FutureWarning("x is old")) == "x is old (a warning, which Python was told to take for an error)"


def status(error, capsys):
    def call():
        raise error

    found = answered("aft-lens x", call)
    return found, capsys.readouterr().err


def test_commands_end_in_a_line_whatever_is_raised(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert status(InputError("name must be short, got \x1b[31m"), capsys) == (
        2, "aft-lens x: name must be short, got \\x1b[31m\n"
    )  # fmt: skip
    assert status(TrainingStopped("go on with --resume"), capsys) == (1, "aft-lens x: go on with --resume\n")
    assert status(KeyboardInterrupt(), capsys)[0] == 130
    code, said = status(KeyError("lost"), capsys)
    assert code == 1
    assert said.count("\n") == 1
    assert "KeyError at test_errors.py" in said
    assert "is a defect, not your input's fault; please report it" in said
    (kept,) = tmp_path.glob("aft-lens-defect-*.txt")
    assert str(kept) in said
    assert "Traceback (most recent call last)" in kept.read_text()


@pytest.mark.parametrize("fails", [True, False])
def test_what_a_thread_raises_is_a_line_and_said_once(fails, capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    def call():
        thread = threading.Thread(target=full)
        thread.start()
        thread.join()
        if fails:
            full()

    before = threading.excepthook
    assert answered("aft-lens x", call) == 2
    assert capsys.readouterr().err == "aft-lens x: No space left on device; free some space, or write elsewhere\n"
    assert threading.excepthook is before


@pytest.mark.parametrize(
    ("module", "extra"),
    [("streamlit", "app"), ("onnx", "export"), ("reformer_pytorch", "baselines"), ("timm", "timm")],
)
def test_a_missing_module_names_the_extra_that_brings_it(module, extra):
    words = missing_module(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert words.endswith(f"pip install 'aft-lens[{extra}]'")


def test_a_broken_image_in_a_workers_hands_is_one_line_with_its_path(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.effect_noise((8, 8), 50).save(tmp_path / name / f"{number}.png")
    data = load_data(f"folder:{tmp_path}", img_size=8)
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(file.read_bytes()[:60])
    for workers in (0, 1):
        error = raised(lambda workers=workers: next(iter(DataLoader(data.test, 2, num_workers=workers))))
        assert isinstance(error, InputError)
        assert answer(error).count("\n") == 0
        assert ".png cannot be read" in answer(error)


def test_names_stay_text():
    assert printable("a\x1b[2Jb\nc\x07") == "a\\x1b[2Jb\nc\\x07"
    assert markless("<b>a</b>") == "‹b›a‹/b›"
