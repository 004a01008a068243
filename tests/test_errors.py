"""What an error tells a user: words with a next step, or a defect whose traceback is kept and not shown."""

import errno
import json
import re
import sys
import threading
import traceback
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from aft_lens.data import flatten, load_data
from aft_lens.device import usable_device
from aft_lens.errors import InputError, answer, markless, printable, report_defect
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
    assert answer(OSError(errno.ENOENT, "No such file or directory", "x")) == "x: No such file or directory"
    wanting = "there is not enough memory for this; ask for less at once (images, batch size, model), or free some"
    assert answer(raised(lambda: torch.empty(2**50))) == answer(MemoryError()) == wanting
    assert answer(raised(lambda: torch.zeros(2) @ torch.zeros(3))) == ""
    assert "channels must be 1 or 3" in answer(raised(lambda: flatten(Image.new("L", (1, 1)), 2)))
    assert answer(ValueError("nobody has raised it")) == "nobody has raised it"
    assert answer(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid")) == ""
    assert answer(FutureWarning("x is old")) == "x is old (a warning, which Python was told to take for an error)"


def test_a_workers_traceback_gives_the_last_message_of_its_chain():
    said = "Caught InputError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  …\n"
    chain = "\n\nThe above exception was the direct cause …\n".join(
        f"aft_lens.errors.InputError: {words}" for words in ("the cause", "the message\n")
    )
    assert str(InputError(said + chain)) == "the message"


def raised_by(module):
    """What a module of that name raises."""
    return raised(lambda: exec("raise ValueError('words')", {"__name__": module} if module else {}))


def test_a_package_that_adds_to_this_one_has_words_too(monkeypatch):
    points = [
        EntryPoint("mean", "lab.mixers.mean:MEAN", "aft_lens.mixers"),
        EntryPoint("tool", "shop.cli.main:main", "console_scripts"),
    ]
    found = EntryPoints(points)

    def entry_points(group=None):
        return found if group is None else found.select(group=group)

    assert answer(raised_by("lab.other")) == ""
    monkeypatch.setattr("aft_lens.errors.entry_points", entry_points)
    assert answer(raised_by("lab.other")) == "words"
    assert answer(raised_by("shop.cli")) == ""
    assert answer(raised_by("")) == ""


def test_a_defects_line_says_what_and_where_and_its_file_has_all(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def deep(count, error):
        if count:
            deep(count - 1, error)
        raise error

    error = raised(lambda: deep(3, KeyError("a\n  b \udcff" + "x" * 300)))
    line = report_defect(error)
    shown = re.escape(" ".join(str(error).split())[:200])
    defect = "is a defect, not your input's fault; please report it with what you ran"
    assert re.fullmatch(rf"KeyError at test_errors\.py:\d+ \({shown}\) {defect} and \S+", line)
    (kept,) = tmp_path.iterdir()
    whole = f"{sys.argv}\n" + "".join(traceback.format_exception(error)).replace("\udcff", "?")
    assert kept.read_text(encoding="utf-8") == whole
    assert re.fullmatch(
        rf"KeyError at test_errors\.py:\d+ {defect} and \S+", report_defect(raised(lambda: deep(0, KeyError())))
    )
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert report_defect(error).endswith(defect)


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
