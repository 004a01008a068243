"""Training in two processes: the same batches, weights and figures as in one, other random draws in each."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import ddp_worker
import pytest
import torch
from lightning_advice import LIGHTNING_ADVICE
from test_training import weights

from aft_lens.checkpoint import load_checkpoint, read_metrics
from aft_lens.data import load_data
from aft_lens.training import evaluate, train

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]


def launch(kind, folder):
    """Run the worker: Lightning starts the second process of a training, the kernels' case gets both here."""
    ranks = range(ddp_worker.PROCESSES) if kind == "kernels" else [None]
    base = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "TRITON_INTERPRET": "1"}
    base["MASTER_PORT"] = str(20_000 + os.getpid() % 20_000)
    command = [sys.executable, ddp_worker.__file__, kind, str(folder)]
    running = []
    for rank in ranks:
        own = base if rank is None else {**base, "LOCAL_RANK": str(rank)}
        running.append(subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    said = [process.communicate(timeout=240)[0] for process in running]
    assert all(process.returncode == 0 for process in running), "\n".join(said)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ddp_worker.PROCESSES)]


def fewer(*arguments, **options):
    """`load_data` as the worker has it."""
    return ddp_worker.fewer_validated(load_data(*arguments, **options))


def test_two_processes_train_to_one_process_s_weights(tmp_path, monkeypatch):
    seen = launch("equal", tmp_path)
    monkeypatch.setattr("aft_lens.training.run.load_data", fewer)
    alone = train(ddp_worker.recipe("equal", 1), tmp_path / "alone", progress=False)
    expected, found = weights(alone), weights(tmp_path / "run")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=2e-5, rtol=1e-4)
    assert max(max(one["spread"]) for one in seen) == 0.0
    for one, other in zip(read_metrics(alone), read_metrics(tmp_path / "run"), strict=True):
        for key in ("train_loss", "train_entropy_sum", "val_loss", "val_accuracy", "entropy/mean"):
            assert other[key] == pytest.approx(one[key], abs=1e-4), key


def test_two_processes_draw_their_own_and_keep_one_model_and_one_goes_on(tmp_path, monkeypatch):
    seen = launch("gumbel", tmp_path)
    assert all(max(one["spread"]) == 0.0 for one in seen)
    assert all(a != b for a, b in zip(seen[0]["samples"], seen[1]["samples"], strict=True))
    assert len(seen[0]["samples"]) == 2 * 19 + 1
    alike = [a == b for one, other in zip(*(one["labels"] for one in seen)) for a, b in zip(one, other, strict=True)]
    assert sum(alike) / len(alike) > 0.5, "repeats of an image go to different processes"
    monkeypatch.setattr("aft_lens.training.run.load_data", fewer)
    saved, data = load_checkpoint(tmp_path / "run"), fewer("digits")
    right = evaluate(saved.model, data.val, data.classes)
    last = read_metrics(tmp_path / "run")[-1]
    assert last["val_accuracy"] == pytest.approx(right.accuracy, abs=1e-6)
    assert last["val_loss"] == pytest.approx(right.loss, abs=1e-5)
    alone = ddp_worker.recipe("gumbel", 1)
    smaller = replace(alone, data=replace(alone.data, batch_size=32))
    with pytest.raises(ValueError, match="took 19 steps an epoch and would go on with 39"):
        train(smaller, tmp_path / "run", resume=True, progress=False)
    train(alone, tmp_path / "run", resume=True, progress=False)
    rows = read_metrics(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[2]["train_loss"] < rows[0]["train_loss"]


def test_kernels_share_their_gradients(tmp_path):
    for found in launch("kernels", tmp_path):
        assert found["error"] < 1e-6
        assert found["size"] > 1e-4
