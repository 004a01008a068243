"""The moving average of weights: its formula, what it leaves whole, and where it lies."""

from types import SimpleNamespace

import lightning.pytorch as pl
import torch
from torch import nn

from aft_lens.training.moving_average import MovingAverage

DECAY = 0.9
WHOLE = torch.arange(-400, 401)


def module():
    """A weight, and buffers of every kind."""
    made = pl.LightningModule()
    made.model = nn.Linear(3, 2)
    made.model.register_buffer("mean", torch.zeros(2))
    made.model.register_buffer("offset", WHOLE.clone())
    made.model.register_buffer("kept", WHOLE > 0)
    return made


def averaged(callback):
    """The average's tensors by name."""
    checkpoint = {"state_dict": {}}
    callback.on_save_checkpoint(None, None, checkpoint)
    return checkpoint["state_dict"]


def test_weights_and_means_are_averaged_and_whole_numbers_kept():
    trained, trainer = module(), SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")))
    callback = MovingAverage(DECAY)
    callback.setup(trainer, trained, "fit")
    expected = {}
    for step in range(1, 5):
        trainer.global_step = step
        with torch.no_grad():
            trained.model.weight.normal_()
            trained.model.mean.normal_()
        for name in ("model.weight", "model.mean"):
            now = trained.state_dict()[name]
            expected[name] = DECAY * expected[name] + (1 - DECAY) * now if name in expected else now.clone()
        callback.on_train_batch_end(trainer, trained, None, None, step - 1)
    found = averaged(callback)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert torch.equal(found["model.offset"], WHOLE)
    assert torch.equal(found["model.kept"], WHOLE > 0)


def test_it_lies_where_the_model_will_train():
    callback, device = MovingAverage(DECAY), torch.device("meta")
    callback.setup(SimpleNamespace(strategy=SimpleNamespace(root_device=device)), module(), "fit")
    assert {value.device for value in averaged(callback).values()} == {device}
