"""Jobs in processes of their own: shared, told of, cancelled, found again, and ended where nobody waits."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import aft_lens
from aft_lens.errors import InputError
from analyses.store import fingerprint
from app.back import jobs as module
from app.back import shelf
from app.back.jobs import CANCELLED, DONE, FAILED, WAITING, Jobs
from app.back.link import Defect, Link
from app.held import Held
from app.places import JOBS_VARIABLE

DIGITS = str(Path(__file__).parents[1] / "checkpoints" / "digits-conv")
PRUNE = {"source": DIGITS, "revision": "1", "criterion": "magnitude", "keep": 1, "images": 64}
LONG = {"source": DIGITS, "revision": "1", "images": 360}


@pytest.fixture(scope="module")
def link():
    found = Link()
    yield found
    found.stop()


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv(JOBS_VARIABLE, str(tmp_path))
    shelf.folder.cache_clear()
    yield tmp_path
    shelf.folder.cache_clear()


@pytest.fixture
def jobs(link, place):
    found = Jobs(link)
    yield found
    found.stop()


def until(true, seconds=240):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]


def test_the_same_question_is_one_job_whose_result_outlives_the_server(jobs, link):
    first = jobs.ask("prune", "Pruning", PRUNE, visitor="a")
    assert jobs.ask("prune", "Pruning", PRUNE, visitor="b") is first
    until(lambda: first.state == DONE)
    assert first.result["rows"][-1]["name"] == "indexed"
    assert first.result["command"][:2] == ["aft-lens", "prune"]
    until(lambda: len(shelf.files(first.place)) >= 4)  # drawn after the result has come
    again = Jobs(link).ask("prune", "Pruning", PRUNE, start=False)
    assert again.state == DONE
    assert again.result["rows"] == first.result["rows"]
    assert Jobs(link).ask("prune", "Pruning", {**PRUNE, "revision": "2"}, start=False) is None


def test_a_job_tells_how_far_it_is_and_ends_when_it_is_cancelled(jobs):
    job = jobs.ask("costs", "Every head", LONG, visitor="a")
    until(lambda: job.share > 0)
    assert "knock-outs" in job.said
    pid = job.fork.pid
    jobs.cancel(job)
    assert job.state == CANCELLED
    until(lambda: gone(pid))
    assert shelf.get(job.place) is None
    assert jobs.ask("costs", "Every head", LONG, visitor="a", again=True).active


def test_a_job_ends_when_nobody_waits_for_it(link, place, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    there = {"a"}
    jobs = Jobs(link, is_there=there.__contains__)
    job = jobs.ask("costs", "Every head", LONG, visitor="a")
    until(lambda: job.share > 0)
    pid = job.fork.pid
    there.clear()
    until(lambda: not job.active)
    assert job.said == "ended, as nobody waited for it"
    until(lambda: gone(pid))


def test_a_job_that_fails_says_why(jobs):
    job = jobs.ask("prune", "Pruning", {**PRUNE, "criterion": "luck"}, visitor="a")
    until(lambda: not job.active)
    assert job.state == FAILED
    assert "luck" in job.said
    assert "magnitude" in job.said


def test_reads_answer_while_jobs_run_and_say_what_is_wrong(jobs, link):
    running = [jobs.ask("costs", "Every head", {**LONG, "revision": str(number)}, visitor="a") for number in range(4)]
    until(lambda: any(job.share > 0 for job in running))
    assert sum(job.state == module.RUNNING for job in running) <= module.MOST_AT_ONCE
    link.read("reads:keys", source=DIGITS, revision="1", data="", image={"sample": 1})
    assert any(job.active for job in running)  # which take minutes
    with pytest.raises(InputError, match="there is no checkpoint 'nowhere'"):
        link.read("reads:looks", source="nowhere", revision="")
    with pytest.raises(Defect, match="is a defect"):
        link.read("reads:looks", source=None, revision="")


def test_nobody_waits_for_the_jobs_of_others(jobs):
    def ask(number, visitor):
        return jobs.ask("costs", "Every head", {**LONG, "revision": str(number)}, visitor=visitor)

    first = [ask(number, "a") for number in range(module.MOST_AT_ONCE + 1)]
    assert [job.state for job in first].count(module.RUNNING) == module.MOST_AT_ONCE
    others = [ask(100 + number, f"visitor {number}") for number in range(module.MOST_IN_ALL)]
    assert [job.state for job in others].count(module.RUNNING) == module.MOST_IN_ALL - module.MOST_AT_ONCE
    assert others[0].state == module.RUNNING
    assert first[-1].state == module.WAITING
    jobs.cancel(first[0])
    assert first[-1].state == module.RUNNING  # it has waited longest


class Drawing:
    """A link, fork and pipe in one, whose jobs are done at once and draw until they may end."""

    pid = 0

    def __init__(self):
        self.may_end = threading.Event()
        self.pipe, self.told = self, threading.local()

    def fork(self):
        return self

    def send(self, message):
        self.told.first = ("told", (1.0, "", {"rows": []}))

    def recv(self):
        first, self.told.first = self.told.first, None
        if first is None:
            assert self.may_end.wait(240)
        return first or ("done", None)

    def close(self):
        pass


def test_who_draws_after_the_result_counts_among_the_processes(place, monkeypatch):
    monkeypatch.setattr(module, "MOST_IN_ALL", 2)
    link = Drawing()
    jobs = Jobs(link)
    asked = [jobs.ask("costs", "Every head", {**LONG, "images": count}, visitor=str(count)) for count in (1, 2, 3)]
    until(lambda: [job.state for job in asked] == [DONE, DONE, WAITING])
    assert [job.working for job in asked] == [True, True, False]
    link.may_end.set()
    until(lambda: asked[2].state == DONE and not any(job.working for job in asked))


def test_a_reader_that_dies_is_words_and_another_takes_its_place(link):
    link.read("listing:libraries")
    until(lambda: link.read("listing:libraries") is not None and len(link.processes()) > 1)
    os.kill(link.processes()[1], 9)
    with pytest.raises(InputError, match="the process that computes has ended"):
        link.read("listing:libraries")
    assert link.read("listing:libraries")


def test_a_damaged_result_is_no_result(place):
    content = {"a": np.arange(3), "b": [{"c": np.ones((2, 2))}], "d": "text"}
    shelf.put(place / "one", content)
    found = shelf.get(place / "one")
    np.testing.assert_array_equal(found["a"], content["a"])
    np.testing.assert_array_equal(found["b"][0]["c"], content["b"][0]["c"])
    (place / "one" / "arrays.npz").write_bytes(b"PK damaged")
    assert shelf.get(place / "one") is None


def test_the_oldest_results_make_room(place, monkeypatch):
    monkeypatch.setattr(shelf, "MOST_BYTES", 3000)
    for number in range(4):
        shelf.put(place / str(number), {"text": "x" * 1200})
        os.utime(place / str(number), (number, number))
    assert not (place / "0").exists()
    assert shelf.get(place / "3") is not None


def test_results_and_questions_are_bounded_by_bytes(place, monkeypatch):
    monkeypatch.setattr(module, "MOST_AT_ONCE", 0)  # all of them wait
    jobs = Jobs(Link())
    monkeypatch.setattr(module, "MOST_HELD", 10_000)
    for number in range(5):
        shelf.put(shelf.path_of("bias", fingerprint("bias", {"n": number}, aft_lens.__version__)), {"a": np.zeros(500)})
        assert jobs.ask("bias", "Biases", {"n": number}).state == DONE
    assert [
        key in jobs._jobs for key in [("bias", fingerprint("bias", {"n": n}, aft_lens.__version__)) for n in (0, 4)]
    ] == [False, True]
    monkeypatch.setattr(module, "MOST_ASKED", 2500)
    first = jobs.ask("seen", "One", {"upload": b"1" * 1000})
    jobs.ask("seen", "Two", {"upload": b"2" * 1000})
    with pytest.raises(InputError, match="too many visitors wait for jobs"):
        jobs.ask("seen", "Three", {"upload": b"3" * 1000})
    jobs.cancel(first)
    assert jobs.ask("seen", "Three", {"upload": b"3" * 1000}).active
    jobs.stop()


def test_a_fork_that_has_grown_large_is_not_kept(link, monkeypatch):
    link.read("listing:libraries")
    until(lambda: link.read("listing:libraries") is not None and len(link.processes()) > 1)
    monkeypatch.setattr("app.back.link.MOST_KEPT", -1)
    known = set(link.processes()[1:])
    for _ in known:
        link.read("listing:libraries")
    assert not known & set(link.processes()[1:])


def test_a_process_with_bounded_memory_says_that_there_is_not_enough():
    code = (
        "from app.back.zygote import bound_memory; from aft_lens.errors import answer; bound_memory(2**26)\n"
        "small = bytearray(2**24)\ntry: bytearray(2**28)\nexcept MemoryError as error: print(answer(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "there is not enough memory for this" in done.stdout


def test_what_is_held_is_bounded_by_bytes():
    held = Held(1000)
    for number in range(5):
        held.get(number, lambda number=number: np.full(50, number, np.float64))
    made = []
    assert held.get(4, lambda: made.append(1))[0] == 4
    held.get(0, lambda: made.append(1) or np.zeros(1))
    assert made == [1]
