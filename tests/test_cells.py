"""Many pieces of work: each done once, what fails or dies takes nothing along, and nothing outlives the command."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from analyses.cells import Cell, Crew, run_cells
from analyses.store import Store


def doubled(number, folder):
    (folder / f"did-{number}").touch()
    return {"number": number, "double": 2 * number, "process": os.getpid()}


def wrong():
    raise ValueError("no such number")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def cells(folder, *numbers):
    return [Cell(f"n{number}", f"mark{number}", partial(doubled, number, folder)) for number in numbers]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_finished_cell_is_never_done_again(tmp_path, workers):
    store, seen = Store(tmp_path / "rows"), []
    first = run_cells(cells(tmp_path, 1, 2), store, Crew(workers=workers))
    again = run_cells(
        cells(tmp_path, 1, 2, 3), store, Crew(workers=workers), done=lambda cell, row: seen.append(cell.name)
    )
    assert {name: row["double"] for name, row in again.rows.items()} == {"n1": 2, "n2": 4, "n3": 6}
    assert again.rows["n1"] == first.rows["n1"]
    assert seen == ["n3"]
    other = [Cell("n1", "other mark", partial(doubled, 1, tmp_path))]
    assert run_cells(other, store, Crew(workers=0)).rows["n1"]["process"] == os.getpid()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failure_stops_no_other_cell(tmp_path, workers):
    todo = [
        Cell("wrong", "m", wrong),
        *cells(tmp_path, 1),
        Cell("waits", "m", partial(doubled, 2, tmp_path), after="wrong"),
    ]
    found = run_cells(todo, Store(tmp_path / "rows"), Crew(workers=workers))
    assert found.failed == {"wrong": "ValueError: no such number"}
    assert list(found.rows) == ["n1"]
    assert found.left == ["waits"]


def test_a_killed_process_is_replaced(tmp_path):
    found = run_cells([Cell("dies", "m", die), *cells(tmp_path, 1, 2)], Store(tmp_path / "rows"), Crew(workers=1))
    assert found.failed == {"dies": "its process ended with exit code -9"}
    assert sorted(found.rows) == ["n1", "n2"]
    assert not multiprocessing.active_children()


def test_a_worker_goes_on_with_the_kind_that_it_began(tmp_path):
    todo = [replace(cell, kind="ab"[number % 2]) for number, cell in enumerate(cells(tmp_path, 1, 2, 3, 4))]
    assert list(run_cells(todo, Store(tmp_path / "in turn"), Crew(workers=1)).rows) == ["n1", "n2", "n3", "n4"]
    kept = [replace(cell, keeps=True) for cell in todo]
    assert list(run_cells(kept, Store(tmp_path / "by kind"), Crew(workers=1)).rows) == ["n1", "n3", "n2", "n4"]


@pytest.mark.parametrize(("life", "processes"), [(0, 1), (2, 2)])
def test_a_cell_waits_for_what_it_needs_and_processes_are_replaced(tmp_path, life, processes):
    todo = [Cell("late", "m", partial(doubled, 5, tmp_path), after="n2"), *cells(tmp_path, 1, 2)]
    found = run_cells(todo, Store(tmp_path / "rows"), Crew(workers=1, life=life))
    assert list(found.rows) == ["n1", "n2", "late"]
    assert len({row["process"] for row in found.rows.values()}) == processes


def test_time_that_is_over_ends_what_runs_and_starts_nothing(tmp_path):
    slow = [Cell(f"slow{number}", "m", partial(time.sleep, 600)) for number in range(2)]
    begun = time.monotonic()
    found = run_cells(slow, Store(tmp_path / "rows"), Crew(workers=1, budget=1.0))
    assert time.monotonic() - begun < 300
    assert sorted(found.left) == ["slow0", "slow1"]
    assert not multiprocessing.active_children()
    with pytest.raises(ValueError, match="budget"):
        Crew(budget=-1)


def test_what_cannot_end_in_time_is_not_started(tmp_path):
    one = Cell("one", "m", partial(time.sleep, 0.5), "slow", 1.0)
    long = Cell("long", "m", partial(time.sleep, 60), "slow", 1000.0)
    assert run_cells([one, long], Store(tmp_path / "rows"), Crew(workers=0, budget=30.0)).left == ["long"]


CHILD = """
import sys, time
from functools import partial
from pathlib import Path
from analyses.cells import Cell, Crew, run_cells
from analyses.store import Store
sys.path.insert(0, {tests!r})
from test_cells import lasting

if __name__ == "__main__":
    run_cells([Cell("x", "m", partial(lasting, Path({folder!r})))], Store(Path({folder!r}) / "rows"))
"""


def lasting(folder):
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's word for it is Linux's")
def test_processes_end_with_a_killed_command(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD.format(tests=str(Path(__file__).parent), folder=str(tmp_path)))
    parent = subprocess.Popen([sys.executable, str(script)])
    pid = tmp_path / "pid"
    assert _until(lambda: pid.exists() and pid.read_text())
    parent.kill()
    parent.wait()
    assert _until(lambda: not _runs(int(pid.read_text())))


def _until(true, seconds=300):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.1)
    return False


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
