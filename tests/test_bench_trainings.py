"""Runs as cells in processes of their own: what is finished stays, what is stopped goes on, what fails says why."""

import pytest

from analyses.bench.multi_gpu.trainings import Training, Trainings, epochs_written
from analyses.cells import Crew, gpus_of

EPOCHS = 12
TINY = ("--recipe=digits-conv", "--model.depth=1", "--model.embed_dim=16", "--data.resident=true")


def test_a_run_is_stopped_goes_on_and_is_not_repeated(tmp_path, capsys):
    trainings = Trainings(tmp_path, device="cpu")
    run = Training("run", 1, (*TINY, f"--trainer.epochs={EPOCHS}"))
    found = trainings.broken_off(run, 2, run)
    assert 2 <= found["before"] < EPOCHS
    assert found["epochs"] == epochs_written(tmp_path / "run") == EPOCHS
    assert trainings.broken_off(run, 2, run) == found
    assert "finished before" in capsys.readouterr().out


def test_runs_side_by_side_and_one_that_fails_says_why(tmp_path):
    trainings = Trainings(tmp_path, device="cpu")
    fine = Training("fine", 1, (*TINY, "--trainer.epochs=1", "--trainer.limit_batches=1"))
    with pytest.raises(ValueError, match=r"(?s)wrong: RuntimeError: wrong failed:.*recipe"):
        trainings.run(Training("wrong", 1, ("--recipe=none",)), fine, beside=2)
    (row,) = trainings.run(fine)
    assert row["epochs"] == 1
    assert row["host_cores"] > 0
    with pytest.raises(ValueError, match="wrong ended before it was stopped"):
        trainings.broken_off(Training("wrong", 1, ("--recipe=none",)), 2, fine)


@pytest.mark.parametrize(("count", "expected"), [(1, ["0", "1", "2", "3", "0"]), (2, ["0,1", "2,3", "0,1"]),
                                                 (4, ["0,1,2,3", "0,1,2,3"]), (0, ["0", "1"])])  # fmt: skip
def test_processes_of_other_numbers_have_other_gpus(monkeypatch, count, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [gpus_of(number, Crew(gpus=count)) for number in range(len(expected))] == expected
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert gpus_of(0, Crew(gpus=count)) == ""
