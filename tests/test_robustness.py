"""A short run of the attacks; `make robustness` does the long one."""

from robustness import inputs, kills


def test_mutated_inputs_are_read_or_answered(tmp_path):
    for kind, found in inputs.attack(60, tmp_path).items():
        assert found["read"] + found["answered"] >= 60, kind
        assert not any(found[fault] for fault in ("traceback", "hang", "allocation")), (kind, found)


def test_killed_runs_go_on_to_the_same_end(tmp_path):
    found = kills.attack(2, tmp_path)
    assert found["resumed"] + found["anew"] == 2
    assert not any(found[fault] for fault in ("unreadable", "traceback", "other weights")), found
