"""Training with the model's passes as CUDA graphs: the same run, and refused where it would not be."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning_advice import LIGHTNING_ADVICE
from torch import nn

from aft_lens.checkpoint import load_checkpoint, read_metrics
from aft_lens.training import read_recipe, train
from aft_lens.training.graphs import CudaGraphs

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]

SETTINGS = {
    "digits-conv": {},
    "digits-entropy": {"--model.drop_path": 0.2, "--optim.ema": 0.9},
    "digits-single": {"--sparsity.temperature_schedule": "cosine", "--trainer.precision": "bf16-mixed"},
    "digits-vit": {"--trainer.precision": "16-mixed"},
}


def recipe(name, **changes):
    options = {"--trainer.epochs": 3, "--trainer.limit_batches": 8, "--data.resident": "true"}
    options.update({"--trainer.accelerator": "auto", **changes})
    return read_recipe(name, *(f"{key.removeprefix('--')}={value}" for key, value in options.items()))


def graphed(plain):
    return replace(plain, trainer=replace(plain.trainer, cuda_graphs=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", SETTINGS)
def test_graphs_train_the_same_run(name, tmp_path, monkeypatch):
    """Random numbers, schedules, clipping, averages, batch norm and the entropy term as without graphs."""
    made, make = [], torch.cuda.make_graphed_callables
    monkeypatch.setattr("torch.cuda.make_graphed_callables", lambda *a: made.append(a) or make(*a))
    plain = recipe(name, **SETTINGS[name])
    paths = [train(run, tmp_path / str(i), progress=False) for i, run in enumerate((plain, graphed(plain)))]
    assert len(made) == 1
    expected, found = map(read_metrics, paths)
    for key in set(expected[0]) & {"train_loss", "val_loss", "entropy/mean"}:
        values = [[row[key] for row in rows] for rows in (expected, found)]
        torch.testing.assert_close(values[1], values[0], rtol=2e-3, atol=2e-3)
    assert found[0]["train_loss"] > found[-1]["train_loss"]
    states = [load_checkpoint(path).model.state_dict() for path in paths]
    for key in (key for key in states[0] if key.endswith("num_batches_tracked")):
        assert states[0][key] == states[1][key]


@pytest.fixture
def module():
    module = nn.Module()
    module.model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2))
    return module


def capture(module, monkeypatch, make):
    """Run the callback's first two batches on the CPU, where `make` stands for PyTorch's capturing."""
    monkeypatch.setattr("torch.random.fork_rng", lambda **_: nullcontext())
    monkeypatch.setattr("torch.cuda.make_graphed_callables", make)
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(forward_context=nullcontext))
    callback = CudaGraphs()
    for index in range(2):
        callback.on_train_batch_start(trainer, module, (torch.randn(3, 1, 2, 2), None), index)
    return callback, trainer


def test_passes_that_warm_up_leave_no_trace(module, monkeypatch):
    before = {name: value.clone() for name, value in module.state_dict().items()}
    seen = []
    callback, trainer = capture(module, monkeypatch, lambda model, images: seen.append(model(*images)))
    assert len(seen) == 1
    torch.testing.assert_close(dict(module.state_dict()), before, rtol=0, atol=0)
    assert "forward" in vars(module.model)
    callback.on_exception(trainer, module, KeyboardInterrupt())
    assert "forward" not in vars(module.model)


def test_what_cannot_be_captured_names_the_setting(module, monkeypatch):
    def refuse(model, images):
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match=r"set trainer.cuda_graphs to false: operation not permitted"):
        capture(module, monkeypatch, refuse)


def test_graphs_are_refused_without_a_gpu(tmp_path):
    on_cpu = graphed(recipe("digits-conv", **{"--trainer.accelerator": "cpu"}))
    with pytest.raises(ValueError, match=r"trainer.cuda_graphs needs a CUDA device, got cpu; set it to false"):
        train(on_cpu, tmp_path / "run", progress=False)
    assert not list(tmp_path.iterdir())


def test_graphs_are_refused_where_they_would_train_something_else():
    """PyTorch's graphed callables hand out the same gradients' memory at every step; AFT-full looks at its sums."""
    with pytest.raises(ValueError, match=r"trainer.cuda_graphs needs optim.accumulate 1, got 2"):
        graphed(recipe("digits-conv", **{"--optim.accumulate": 2}))
    with pytest.raises(ValueError, match=r"does not go with mixer aft_full"):
        graphed(recipe("digits-full"))
    with pytest.raises(ValueError, match=r"does not go with mixer aft_conv and outside none"):
        graphed(recipe("digits-conv", **{"--model.outside": "none"}))
