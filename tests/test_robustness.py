"""A short run of the attacks; `make robustness` does the long one."""

import resource

from robustness import inputs, kills, limits


def test_mutated_inputs_are_read_or_answered(tmp_path):
    for kind, found in inputs.attack(60, tmp_path).items():
        assert found["read"] + found["answered"] >= 60, kind
        assert not any(found[fault] for fault in ("traceback", "hang", "allocation")), (kind, found)


def test_killed_jobs_go_on_to_the_same_end(tmp_path):
    for name, found in kills.attack(1, tmp_path, names=("save", "prune", "study")).items():
        assert found.pop("kills") == 1, name
        assert found.pop("ended alike") >= 1, name
        found.pop("while saving")  # by chance in so few kills
        assert not any(found.values()), (name, found)


def test_training_goes_through_with_few_handles_and_warnings_as_errors(tmp_path):
    few = limits.Limit(limits.most(resource.RLIMIT_NOFILE, 64), options=["--data.workers=1"], python=["-W", "error"])
    done = limits.train(tmp_path, 1, few)
    assert done.returncode == 0, done.stderr
    assert limits.epochs(tmp_path) == 1
