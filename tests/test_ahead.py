"""Stages of a pipeline in threads: order, errors, ends, and that they work at the same time; who works alone."""

import gc
import os
import threading
import time

import pytest
import torch
from photos import photo

from aft_lens.data import FileBatches, load_data
from aft_lens.data.files import reader
from aft_lens.data.files.ahead import Ahead
from aft_lens.device import DeviceWork

CPU = torch.device("cpu")
LONG = 60
"""Seconds that nothing here takes, however busy the machine is."""


def threads():
    return [each for each in threading.enumerate() if each.name == "images"]


def test_items_come_in_order_through_two_stages_and_leave_no_thread():
    squares = Ahead(iter(range(50)), lambda item: (item * item,), CPU)
    ends = Ahead(squares, lambda item: (item[0] % 10, "end"), CPU, waiting=1)
    assert list(ends) == [(number * number % 10, "end") for number in range(50)]
    assert list(ends) == []
    assert threads() == []


def test_two_stages_work_at_the_same_time():
    meeting = threading.Barrier(2)

    def first(item):
        if item:  # while the stage behind has the item before
            meeting.wait(LONG)
        return (item,)

    def second(item):
        if item[0] < 4:
            meeting.wait(LONG)
        return item

    assert [made for (made,) in Ahead(Ahead(iter(range(5)), first, CPU), second, CPU)] == list(range(5))


def test_an_error_of_any_stage_is_raised_where_its_item_is_asked_for():
    def divided(item):
        return (12 // item,)

    found = Ahead(Ahead(iter([3, 2, 0, 1]), divided, CPU), lambda item: item, CPU)
    assert [next(found), next(found)] == [(4,), (6,)]
    with pytest.raises(ZeroDivisionError):
        next(found)
    with pytest.raises(StopIteration):
        next(found)
    assert threads() == []


def test_who_stops_in_the_middle_ends_every_thread():
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield taken[-1]

    found = Ahead(Ahead(endless(), lambda item: (item,), CPU), lambda item: item, CPU)
    assert next(found) == (0,)
    found.close()
    assert threads() == []
    assert len(taken) < 12, "made no further ahead than was asked for"
    with pytest.raises(StopIteration):
        next(found)


def test_who_is_forgotten_ends_its_threads():
    found = Ahead(Ahead(iter(range(1000)), lambda item: (item,), CPU), lambda item: item, CPU)
    next(found)
    del found
    end = time.monotonic() + LONG
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert threads() == []


def test_alone_waits_for_those_beside_and_holds_up_later_ones():
    work, order = DeviceWork(), []
    begun, may_end = threading.Event(), threading.Event()

    def beside(name, wait):
        with work.beside():
            order.append(f"{name} begins")
            begun.set()
            assert wait.wait(LONG)
            order.append(f"{name} ends")

    def alone():
        with work.alone():
            order.append("alone")

    first = threading.Thread(target=beside, args=("first", may_end))
    first.start()
    assert begun.wait(LONG)
    middle = threading.Thread(target=alone)
    middle.start()
    end = time.monotonic() + LONG
    while not work._alone and time.monotonic() < end:
        time.sleep(0.01)
    last = threading.Thread(target=beside, args=("last", may_end))
    last.start()
    may_end.set()
    for thread in (first, middle, last):
        thread.join(LONG)
    assert order == ["first begins", "first ends", "alone", "last begins", "last ends"]


def test_who_is_interrupted_while_waiting_to_be_alone_holds_nobody_up(monkeypatch):
    work = DeviceWork()

    def interrupted(condition):
        if not condition():
            raise KeyboardInterrupt

    with work.beside():
        with monkeypatch.context() as patch:
            patch.setattr(work._changed, "wait_for", interrupted)
            with pytest.raises(KeyboardInterrupt), work.alone():
                pass
        with work.beside():
            assert work._beside == 2


def test_a_stage_that_closes_its_own_pipeline_hangs_nobody():
    """As the garbage collector does, which runs in whichever thread allocates."""
    stages, built = [], threading.Event()

    def closing(item):
        if item == 2 and built.wait(LONG):
            stages[-1].close()
        return (item,)

    first = Ahead(iter(range(100)), closing, CPU)
    stages.append(Ahead(Ahead(first, lambda item: item, CPU), lambda item: item, CPU))
    built.set()
    assert len(list(stages[-1])) < 100
    end = time.monotonic() + LONG
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert threads() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_of_files_by_stages_is_the_pass_without(tmp_path, workers):
    for number in range(11):
        photo(12 + number, 16, number).save(tmp_path / f"{number:02d}.jpg")
    (tmp_path / "05.jpg").write_bytes(b"\xff\xd8 no more")
    data = load_data(f"images:{tmp_path}", img_size=8, labelled=False)
    plain, staged = (FileBatches(data.test, 4, bad_files="skip", workers=workers) for _ in range(2))
    for (images, labels), (others, same) in zip(list(plain), staged.stages(CPU), strict=True):
        assert torch.equal(images, others)
        assert torch.equal(labels, same)
    assert plain.bad == staged.bad != {}
    assert plain.milliseconds == {}
    assert list(staged.milliseconds) == ["reading", "copying"]


def test_a_stage_says_what_it_waits_for_and_works_on():
    def slow():
        for number in range(4):
            time.sleep(0.05)
            yield number

    found = Ahead(slow(), lambda item: (item, time.sleep(0.02)), CPU)
    assert len(list(found)) == found.spent.items == 4
    assert found.spent.waited > 0.2
    assert found.spent.worked > 0.08


class Garbage:
    """Something in a cycle that notes which process collects it."""

    def __init__(self, note):
        self.note, self.itself = note, self

    def __del__(self):
        with open(self.note, "a") as file:
            file.write(f"{os.getpid()}\n")


def test_workers_collect_nothing_that_the_process_before_them_left(tmp_path, monkeypatch):
    """What is left may be on a GPU: a forked process that frees it is ended by CUDA."""
    for number in range(4):
        photo(12, 16, number).save(tmp_path / f"{number}.jpg")
    read, collect, parent = reader.read_image, gc.collect, os.getpid()

    def collecting(path):
        if os.getpid() != parent:
            collect()
        return read(path)

    monkeypatch.setattr(reader, "read_image", collecting)
    data = load_data(f"images:{tmp_path}", img_size=8, labelled=False)
    way, note = FileBatches(data.test, 2, workers=2), tmp_path / "note"

    def collect_and_leave_more():
        collect()
        Garbage(note)  # after the last look around, as another thread might

    monkeypatch.setattr("aft_lens.data.files.batches.gc.collect", collect_and_leave_more)
    Garbage(note)
    gc.disable()
    try:
        assert len(list(way)) == 2
    finally:
        gc.enable()
    collect()
    assert set(note.read_text().split()) == {str(os.getpid())}
