"""Training with the model's passes as CUDA graphs: the same run, and refused where it would not be."""

from dataclasses import replace

import jsonargparse
import pytest
import torch
from test_training import LIGHTNING_ADVICE

from aft_lens.checkpoint import read_metrics
from aft_lens.training import Recipe, recipe_path, train

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]

SETTINGS = {
    "digits-conv": {},
    "digits-entropy": {"--model.drop_path": 0.2, "--optim.ema": 0.9},
    "digits-single": {"--sparsity.temperature_schedule": "cosine", "--trainer.precision": "bf16-mixed"},
}


def recipe(name, **changes):
    options = {
        "--trainer.epochs": 3,
        "--trainer.limit_batches": 8,
        "--data.resident": "true",
        "--trainer.accelerator": "auto",
    }
    options.update(changes)
    arguments = [f"--config={recipe_path(name)}", *(f"{key}={value}" for key, value in options.items())]
    return jsonargparse.auto_cli(Recipe, args=arguments, as_positional=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", SETTINGS)
def test_graphs_train_the_same_run(name, tmp_path):
    """Random numbers, schedules, clipping, averages and the entropy term as without graphs."""
    plain = recipe(name, **SETTINGS[name])
    graphed = replace(plain, trainer=replace(plain.trainer, cuda_graphs=True))
    expected, found = (
        read_metrics(train(run, tmp_path / str(i), progress=False)) for i, run in enumerate((plain, graphed))
    )
    for key in ("train_loss", "val_loss", "entropy/mean"):
        values = [[row[key] for row in rows] for rows in (expected, found)]
        torch.testing.assert_close(values[1], values[0], rtol=2e-3, atol=2e-3)
    assert found[0]["train_loss"] > found[-1]["train_loss"]


def test_graphs_are_refused_without_a_gpu(tmp_path):
    graphed = recipe("digits-conv", **{"--trainer.cuda_graphs": "true", "--trainer.accelerator": "cpu"})
    with pytest.raises(ValueError, match=r"trainer.cuda_graphs needs a CUDA device, got cpu; set it to false"):
        train(graphed, tmp_path / "run", progress=False)
    assert not list(tmp_path.iterdir())


def test_graphs_are_refused_with_accumulated_gradients():
    """PyTorch's graphed callables hand out the same gradient buffers at every step."""
    plain = recipe("digits-conv", **{"--optim.accumulate": 2})
    with pytest.raises(ValueError, match=r"trainer.cuda_graphs needs optim.accumulate 1, got 2"):
        replace(plain, trainer=replace(plain.trainer, cuda_graphs=True))
