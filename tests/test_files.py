"""Whole files and folders: kills at every step, replacement while one reads, one writer at a time."""

import os
import stat
import subprocess
import sys
import threading
import time

import pytest

from aft_lens import files
from aft_lens.errors import InputError
from aft_lens.files import locked, recovered, steady, whole_folder, write_whole


def filled(path, text):
    with whole_folder(path) as folder:
        (folder / "a").write_text(text)
        (folder / "b").write_text(text)


def both(folder):
    return (folder / "a").read_text(), (folder / "b").read_text()


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = write_whole(tmp_path / "deep" / "x.txt", "old Δ")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    monkeypatch.undo()
    assert path.read_text(encoding="utf-8") == "old Δ"
    assert [file.name for file in path.parent.iterdir()] == ["x.txt"]


def test_a_file_system_that_cannot_bring_folders_to_the_disk_is_written_to(tmp_path, monkeypatch):
    whole = os.fsync

    def files_alone(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(22, "Invalid argument")
        whole(number)

    monkeypatch.setattr(os, "fsync", files_alone)
    assert write_whole(tmp_path / "x", "new").read_text() == "new"
    filled(tmp_path / "run", "new")
    assert both(tmp_path / "run") == ("new", "new")


def test_bytes_stay_bytes_and_a_longer_name_is_found_too(tmp_path):
    assert write_whole(tmp_path / "x", b"\xff\x00").read_bytes() == b"\xff\x00"
    (tmp_path / ".experiment.old").mkdir()
    assert files.recovered_of(tmp_path / ".experiment.old") == tmp_path / "experiment"
    assert files.recovered_of(tmp_path / "plain.old") == tmp_path / "plain.old"
    (tmp_path / "experiment").mkdir()
    assert files.recovered_of(tmp_path / ".experiment.old") == tmp_path / ".experiment.old"


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path, monkeypatch):
    filled(tmp_path / "run", "old")
    whole, calls = type(tmp_path).rename, []

    def killed(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            filled(tmp_path / "run", "new")
    assert not (tmp_path / "run").exists()
    assert recovered(tmp_path / "run") == tmp_path / ".run.old"
    assert steady(tmp_path / "run", both) == ("old", "old")
    assert files.recovered_of(tmp_path / ".run.old") == tmp_path / "run"
    filled(tmp_path / "run", "newer")
    assert steady(tmp_path / "run", both) == ("newer", "newer")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_what_is_read_while_it_is_replaced_is_of_one_version(tmp_path):
    filled(tmp_path / "run", "0")
    ended = threading.Event()

    def write():
        for number in range(150):
            filled(tmp_path / "run", str(number))
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not ended.is_set():
        one, other = steady(tmp_path / "run", both)
        assert one == other
        reads += 1
    writer.join()
    assert reads > 10


def test_a_folder_that_got_the_number_of_the_one_before_is_another(tmp_path):
    filled(tmp_path / "run", "old")
    calls = []

    def read(folder):
        """The first time, what is there is moved away and back: the same folder by its number."""
        calls.append(folder)
        if len(calls) == 1:
            time.sleep(0.02)  # file systems count in steps of some milliseconds
            folder.rename(tmp_path / "away").rename(folder)
        return both(folder)

    assert steady(tmp_path / "run", read) == ("old", "old")
    assert len(calls) == 2


def test_a_folder_that_never_rests_is_said_to_be(tmp_path):
    filled(tmp_path / "run", "0")

    def read(folder):
        filled(tmp_path / "run", "1")

    with pytest.raises(InputError, match="was replaced 50 times while it was read"):
        steady(tmp_path / "run", read)
    with pytest.raises(FileNotFoundError):
        steady(tmp_path / "none", both)


def test_a_lock_ends_with_its_process(tmp_path):
    holder = "import sys, time\nfrom aft_lens.files import locked\n"
    holder += "with locked(sys.argv[1], ''):\n    print('locked', flush=True)\n    time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(tmp_path / "x")], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    with (
        pytest.raises(InputError, match="is being written by another process; choose"),
        locked(tmp_path / "x", "choose"),
    ):
        pass
    process.kill()
    process.communicate()
    with locked(tmp_path / "x", ""):
        pass
    assert not list(tmp_path.iterdir())


def test_links_are_followed_and_what_is_no_file_is_written_to_and_stays(tmp_path):
    target = write_whole(tmp_path / "target", "old")
    (tmp_path / "link").symlink_to(target)
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert target.read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "into the pipe")
    reader.join()
    assert found == ["into the pipe"]
    assert pipe.is_fifo()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path, "x")
    with pytest.raises(InputError, match="target is not a folder"):
        filled(target, "x")
    assert target.read_text() == "new"
