"""A short run of the attacks; `make robustness` does the long one."""

from robustness import inputs, kills


def test_mutated_inputs_are_read_or_answered(tmp_path):
    for kind, found in inputs.attack(60, tmp_path).items():
        assert found["read"] + found["answered"] >= 60, kind
        assert not any(found[fault] for fault in ("traceback", "hang", "allocation")), (kind, found)


def test_killed_jobs_go_on_to_the_same_end(tmp_path):
    for name, found in kills.attack(1, tmp_path, names=("save", "prune")).items():
        assert found.pop("kills") == 1, name
        assert found.pop("ended alike") >= 1, name
        assert found.pop("while saving") or name == "prune"
        assert not any(found.values()), (name, found)
