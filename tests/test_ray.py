"""Cells on a Ray cluster of two local nodes: the same rows, none lost and none done twice when a worker is killed."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pruning_cases import trained_like

from aft_lens.checkpoint import save_checkpoint
from analyses.cells import Cell, Crew, run_cells
from analyses.pruning.evidence.plan import Plan
from analyses.pruning.evidence.sweep import run_sweep
from analyses.store import Store

# Read as Ray is imported: a token that a user has is not that of this cluster, and a busy machine leaves nice workers
# nothing.
os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
pytest.importorskip("ray")
pytestmark = [pytest.mark.filterwarnings("ignore")]  # Ray's own, of its processes, files and sockets


@pytest.fixture(scope="module")
def address():
    """Two nodes of one processor each, whose workers find the tests' modules."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - it is not installed everywhere

    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), before])
    cluster = Cluster()
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False)
        yield cluster.address
    finally:
        cluster.shutdown()
        os.environ["PYTHONPATH"] = before


def counted(number, folder):
    """A row that takes a while, and a line for each time that it was done."""
    with (folder / "done").open("a") as file:
        file.write(f"{number}\n")
    drawn = np.random.default_rng(number).random(4)
    return {"values": drawn.tolist(), "sum": float(drawn.sum()), "process": os.getpid()}


def once_killed(folder):
    """Ends its process the first time."""
    if not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return counted(99, folder)


def deadly():
    os.kill(os.getpid(), signal.SIGKILL)


def wrong():
    raise ValueError("no such number")


def bare(rows):
    return {name: {key: value for key, value in row.items() if key != "process"} for name, row in rows.items()}


def test_rows_are_those_of_a_serial_run_and_a_killed_worker_loses_none(address, tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "serial").mkdir()

    def cells(folder):
        made = [Cell(f"n{number}", "m", partial(counted, number, folder)) for number in range(8)]
        made.insert(3, Cell("killed", "m", partial(once_killed, folder)))
        return [*made, Cell("after", "m", partial(counted, 50, folder), after="n2")]

    store, seen = Store(tmp_path / "ray" / "rows"), []
    found = run_cells(cells(tmp_path / "ray"), store, Crew(0, address), done=lambda cell, _row: seen.append(cell.name))
    found.check()
    (tmp_path / "serial" / "killed").touch()
    serial = run_cells(cells(tmp_path / "serial"), Store(tmp_path / "serial" / "rows"), Crew(workers=0))
    assert bare(found.rows) == bare(serial.rows)
    for name in found.rows:  # to the last bit, as they are kept
        one, other = (Store(tmp_path / kind / "rows").get(name, "m") for kind in ("ray", "serial"))
        assert one["values"] == other["values"]
    done = (tmp_path / "ray" / "done").read_text().split()
    assert sorted(done, key=int) == sorted({*map(str, range(8)), "99", "50"}, key=int)  # each once
    assert sorted(seen) == sorted(found.rows)
    assert len({row["process"] for row in found.rows.values()}) >= 2
    assert os.getpid() not in {row["process"] for row in found.rows.values()}
    again = run_cells(cells(tmp_path / "ray"), store, Crew(0, address), done=lambda cell, _row: seen.append(cell.name))
    assert again.rows == found.rows
    assert len(seen) == len(found.rows)


def test_a_pruning_sweep_is_the_serial_one_to_the_last_bit_and_sends_no_twin_out(address, tmp_path):
    """Offsets that two criteria keep alike are found before: 25 of 25 is one cell, whatever chose them."""
    torch.manual_seed(0)
    model = trained_like("free")
    data = {"name": "digits", "img_size": 8}
    parent = save_checkpoint(tmp_path / "parent", model, data=data, recipe={}, seed=0, metrics=[])
    plan = Plan((str(parent),), ("magnitude", "centre"), keeps=(25, 1), images=20, calibration=4)
    shared = run_sweep(plan, tmp_path / "shared", times="none", crew=Crew(0, address))
    assert shared == run_sweep(plan, tmp_path / "serial", times="none")
    assert [row.keep for row in shared] == [25, 1] * 2
    done = {name: (tmp_path / name / "rungs").glob("*.json") for name in ("shared", "serial")}
    assert len({path.read_text() for path in done["shared"]}) == len(list(done["serial"])) == 4


def test_what_fails_or_kills_its_workers_stops_no_other(address, tmp_path):
    todo = [Cell("deadly", "m", deadly), Cell("wrong", "m", wrong), Cell("fine", "m", partial(counted, 1, tmp_path))]
    found = run_cells(todo, Store(tmp_path / "rows"), Crew(0, address))
    assert list(found.rows) == ["fine"]
    assert found.failed["wrong"] == "ValueError: no such number"
    assert found.failed["deadly"].startswith("its worker was lost 3 times")


def test_time_that_is_over_ends_what_runs(address, tmp_path):
    begun = time.monotonic()
    slow = [Cell(f"slow{number}", "m", partial(time.sleep, 600)) for number in range(3)]
    found = run_cells(slow, Store(tmp_path / "rows"), Crew(0, address, budget=3.0))
    assert sorted(found.left) == ["slow0", "slow1", "slow2"]
    assert time.monotonic() - begun < 300


def test_what_the_cluster_cannot_give_is_said(address, tmp_path):
    one = [Cell("one", "m", partial(counted, 1, tmp_path))]
    with pytest.raises(ValueError, match="a worker needs 1 and 2"):
        run_cells(one, Store(tmp_path / "rows"), Crew(0, address, gpus=2.0))
    with pytest.raises(ValueError, match="gpus and life must be 0 or more"):
        Crew(0, address, gpus=-1.0)
