"""What the study trains, at which learning rates, and input at fault."""

import json

import pytest

from analyses.provenance import visible_gpu
from analyses.study import Study, command
from analyses.study.claims import OURS, PAPER
from analyses.study.configurations import CONFIGURATIONS, FAMILIES, RIVAL_SETTINGS
from analyses.study.plan import PLANS, RATES, TUNING_SEED, read_rates, tasks


def plan(name, family="fashion", **fields):
    return tasks(Study(plan=name, family=family, accelerator="cpu", tuned=False, **fields))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_run_is_a_recipe_of_its_own(family):
    for name in PLANS:
        found = plan(name, family, seeds=1)
        assert len({task.name for task in found}) == len(found)
        assert all(task.recipe.data.resident for task in found)
        assert all(task.recipe.data.held_out == (name != "long") for task in found)


def test_claims_are_trained_seed_by_seed():
    found = plan("claims")
    models = {task.configuration.name: task.recipe.model for task in found}
    assert len(found) == 10 * len(models)
    assert [task.recipe.seed for task in found[: len(models)]] == [0] * len(models)
    assert (models["w19"].window_size, models["conv"].grid_size) == (19, 14)
    assert models["h96"].num_heads == models["h96"].embed_dim
    assert models["w7-only"].outside == "none"
    assert models["no-query"].use_query is False
    assert {model.stem for model in models.values()} == {"patch"}
    assert (models["crops"].img_size, models["conv"].img_size) == (20, 28)
    assert {t.recipe.sparsity.entropy_weight for t in found if t.configuration.name == "entropy"} == {0.001}
    assert "full" not in {task.configuration.name for task in plan("claims", "cifar10")}
    transfer = next(task for task in found if task.configuration.name == "transfer")
    assert transfer.after == "fashion-claims-vit-s0"


def test_every_run_starts_from_one_that_is_there():
    for name in PLANS:
        found = plan(name)
        assert {task.after for task in found if task.after} <= {task.name for task in found}
    tuned = {task.after for task in plan("tuning") if task.configuration.name == "transfer"}
    assert tuned == {"fashion-tuning-vit-lr0.002-x1"}


def test_rivals_and_controls_keep_what_their_names_say():
    models = {task.configuration.name: task.recipe for task in plan("sparsity", "cifar10", seeds=1)}
    for kind, (path, values) in RIVAL_SETTINGS.items():
        for value in values:
            recipe = models[f"{kind}-{value:g}"]
            part, field = path.split(".")
            assert recipe.model.position_bias == kind
            assert getattr(getattr(recipe, part), field) == value
    assert models["pool"].model.keep == (0,) * 6
    assert models["no-cutmix"].data.cutmix == 0 < models["conv"].data.cutmix
    assert models["single-cooled"].sparsity.temperature_end < models["single-cooled"].model.temperature
    seeds = [task.recipe.seed for task in plan("sparsity", "cifar10") if task.configuration.name == "topk-2"]
    assert seeds == [0, 1, 2]


def test_every_claim_is_of_configurations_that_its_plan_trains():
    for claims, name in ((PAPER, "claims"), (OURS, "sparsity")):
        trained = {each.name for each in PLANS[name].configurations}
        for claim in claims:
            assert {claim.treatment, claim.control} <= trained
        assert len({claim.words for claim in claims}) == len(claims)


def test_tuning_tries_as_many_rates_for_every_configuration():
    found = plan("tuning", "cifar10")
    tried = {}
    for task in found:
        tried.setdefault(task.configuration.name, set()).add((task.recipe.optim.lr, task.recipe.optim.bias_lr_scale))
        assert task.recipe.seed == TUNING_SEED
    assert {len(pairs) for pairs in tried.values()} == {9}
    assert tried["conv"] == set(RATES)
    assert max(lr for lr, _ in tried["conv"]) == max(lr for lr, _ in tried["vit"])
    assert {scale for _, scale in tried["vit"]} == {1.0}
    assert set(tried) == {each.name for each in CONFIGURATIONS.values() if "cifar10" in each.families} & {
        each.tuned for each in CONFIGURATIONS.values()
    }


def test_tuned_rates_are_taken_and_missing_ones_are_named(tmp_path):
    study = Study(plan="long", family="digits", accelerator="cpu")
    with pytest.raises(ValueError, match=r"no learning rates of digits for conv, .*--study\.plan tuning"):
        read_rates(study, tmp_path)
    rates = {name: {"lr": 0.003, "bias_lr_scale": 7.0} for name in ("conv", "vit", "single", "entropy")}
    (tmp_path / "tuning.json").write_text(json.dumps({"chosen": {"digits": rates}}))
    found = tasks(study, read_rates(study, tmp_path))
    assert {(task.recipe.optim.lr, task.recipe.optim.bias_lr_scale) for task in found} == {(0.003, 7.0)}
    assert {task.configuration.name for task in found} == {*rates, "single-96"}  # tuned as single


def test_input_at_fault(tmp_path):
    with pytest.raises(ValueError, match="resnet"):
        Study(only=("resnet",))
    with pytest.raises(ValueError, match=r"study\.family"):
        Study(family="mnist")
    with pytest.raises(ValueError, match=r"study\.plan"):
        Study(plan="everything")
    with pytest.raises(ValueError, match="seeds"):
        Study(seeds=-1)
    study = Study(runs=tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="study judge"):
        command("claims-table", out=tmp_path)
    for what in ("judge", "rivals", "tuning"):
        with pytest.raises(ValueError, match=r"has no runs of the plan .* train them"):
            command(what, study=study, out=tmp_path)
    with pytest.raises(ValueError, match="to be judged"):
        command("judge", study=Study(plan="tuning"), out=tmp_path)


@pytest.mark.parametrize(("named", "expected"), [("", ["0", "1", "0"]), ("5,7", ["5", "7", "5"])])
def test_workers_take_gpus_in_turn(monkeypatch, named, expected):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert [visible_gpu(number) for number in range(3)] == expected
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert visible_gpu(0) is None
