"""Runs in processes of their own: what is finished stays, what is stopped goes on, what still runs ends."""

import json

import pytest

from analyses.bench.multi_gpu.trainings import Trainings, wait

EPOCHS = 12
TINY = ("--recipe=digits-conv", "--model.depth=1", "--model.embed_dim=16", "--data.resident=true")


def test_a_run_is_stopped_goes_on_and_is_not_repeated(tmp_path, capsys):
    with Trainings(tmp_path, EPOCHS, device="cpu") as trainings:
        started = trainings.start("run", 1, (*TINY, f"--trainer.epochs={EPOCHS}"))
        before = trainings.stop_after("run", 2, started)
        assert 2 <= before < EPOCHS
        wait(trainings.resume("run", (*TINY, f"--trainer.epochs={EPOCHS}")))
        assert trainings.epochs_written("run") == EPOCHS
        options = tuple(json.loads((tmp_path / "run.json").read_text())["content"]["options"])
        assert trainings.start_missing("run", 1, options) is None
        assert "finished before" in capsys.readouterr().out
        other = trainings.start_missing("run", 1, (*options, "--seed=1"))
        assert trainings.epochs_written("run") == 0
    assert other[0].poll() is not None


def test_a_run_that_fails_says_why_and_one_that_has_ended_is_not_stopped(tmp_path):
    with Trainings(tmp_path, 1, device="cpu") as trainings:
        started = trainings.start("wrong", 1, ("--recipe=none",))
        with pytest.raises(RuntimeError, match=r"(?s)wrong failed:.*recipe"):
            wait(started)
        with pytest.raises(RuntimeError, match="wrong ended before it was stopped"):
            trainings.stop_after("wrong", 2, started)


@pytest.mark.parametrize(("count", "expected"), [(1, ["0", "1", "2", "3", "0"]), (2, ["0,1", "2,3", "0,1"]),
                                                 (4, ["0,1,2,3", "0,1,2,3"])])  # fmt: skip
def test_runs_in_other_places_have_other_gpus(tmp_path, monkeypatch, count, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("analyses.bench.multi_gpu.trainings.environment", lambda device: {"hardware": device})
    started = []
    monkeypatch.setattr("subprocess.Popen", lambda *_, env, **__: started.append(env) or Ended())
    with Trainings(tmp_path, EPOCHS) as trainings:
        for place in range(len(expected)):
            trainings.start(f"run-{place}", count, TINY, place)
    assert [env["CUDA_VISIBLE_DEVICES"] for env in started] == expected


class Ended:
    """A process that has come to its end."""

    def poll(self):
        return 0
