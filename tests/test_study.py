"""The study of the paper's claims: what it trains, and input at fault."""

import shutil

import pytest

from analyses.provenance import visible_gpu
from analyses.study import Study, command
from analyses.study.claims import CLAIMS
from analyses.study.plan import CONFIGURATIONS, tasks


def test_every_configuration_is_a_recipe_of_its_own_with_valid_names():
    plan = tasks(Study(accelerator="cpu"))
    assert len(plan) == 3 * len(CONFIGURATIONS) + 5
    assert len({task.name for task in plan}) == len(plan)
    assert [(task.name, task.long, task.recipe.seed) for task in plan[:5]] == [
        (f"fashion-{name}", True, 0) for name in ("vit", "conv", "full", "single", "entropy")
    ]
    assert [task.configuration.name for task in plan[5::3]] == [configuration.name for configuration in CONFIGURATIONS]
    assert [task.recipe.seed for task in plan[5:8]] == [0, 1, 2]
    models = {task.configuration.name: task.recipe.model for task in plan}
    assert len({str(task.recipe.model) for task in plan}) == len(CONFIGURATIONS) - 2  # transfer, entropy: conv's model
    assert models["w27"].window_size == 27
    assert models["w27"].grid_size == 14
    assert models["h96"].num_heads == models["h96"].embed_dim
    assert models["w7-only"].outside == "none"
    assert models["no-query"].use_query is False
    assert {task.recipe.sparsity.entropy_weight for task in plan if task.configuration.name == "entropy"} == {0.001}
    assert all(task.recipe.data.resident and task.recipe.data.augment == "flip-crop" for task in plan)
    lengths = {task.configuration.name: task.recipe.trainer.epochs for task in plan if task.long}
    assert lengths.pop("vit") == 100
    assert set(lengths.values()) == {Study().long_epochs}
    names = {configuration.name for configuration in CONFIGURATIONS}
    for claim in CLAIMS:
        assert claim.control in names
        assert claim.treatment in names or claim.metric == "larger"


def test_input_at_fault(tmp_path):
    with pytest.raises(ValueError, match="resnet"):
        Study(only=("resnet",))
    with pytest.raises(ValueError, match=r"study\.family"):
        Study(family="mnist")
    with pytest.raises(ValueError, match="seeds"):
        Study(seeds=0)
    with pytest.raises(ValueError, match="budget"):
        command("paper-claims", budget=-1)
    with pytest.raises(FileNotFoundError, match="paper-claims"):
        command("claims-table", out=tmp_path)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(("named", "expected"), [("", ["0", "1", "0"]), ("5,7", ["5", "7", "5"])])
def test_workers_take_gpus_in_turn(monkeypatch, named, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [visible_gpu(number) for number in range(3)] == expected
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert visible_gpu(0) is None
