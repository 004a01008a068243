"""Health of single-position training: measures, the callback, the straight-through variant."""

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from aft_lens.layers.position_bias import SinglePosition
from aft_lens.models import create_model
from aft_lens.training.gumbel_health import (
    GumbelHealth,
    HardeningWarning,
    hardening_gap,
    position_health,
    sampled_positions,
    single_positions,
)


def model_with(gamma=1.0):
    torch.manual_seed(0)
    model = create_model("aft_conv_digits", depth=2, embed_dim=16, num_heads=4, window_size=3, position_bias="single")
    for bias in single_positions(model):
        with torch.no_grad():
            bias.inner.gamma.fill_(gamma)
    return model


def test_health_counts_margins_duplicates_and_centres():
    model = model_with()
    bias = single_positions(model)[0]
    with torch.no_grad():
        bias.inner.weight.zero_()
        for head, place in enumerate([4, 4, 0, 7]):
            bias.inner.weight.view(4, 9)[head, place] = 1.0
    health = position_health(model)
    assert health.position[0].tolist() == [4, 4, 0, 7]
    assert health.centre_only >= 2
    assert health.duplicates >= 1
    w = bias.inner().detach().flatten(1)
    torch.testing.assert_close(health.margin[0], w.amax(1) - w.sort(1).values[:, -2])
    moved = health.position.clone()
    moved[0, 0] = 5
    assert health.switches(moved) == 1
    with pytest.raises(ValueError, match="single-position"):
        position_health(create_model("aft_conv_digits", depth=1))


def test_gap_leaves_mode_and_random_state_alone():
    model = model_with().train()
    images, labels = torch.randn(8, 1, 8, 8), torch.randint(0, 10, (8,))
    state = torch.get_rng_state()
    first = hardening_gap(model, [(images, labels)])
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(bias.training for bias in single_positions(model))
    assert first == hardening_gap(model, [(images, labels)])
    with pytest.raises(ValueError, match="at least one image"):
        hardening_gap(model, [])


def test_straight_through_is_one_hot_forward_and_soft_backward():
    torch.manual_seed(0)
    bias = SinglePosition(3, (3, 3), straight_through=True).train()
    with torch.no_grad():
        bias.inner.gamma.fill_(1.0)
        bias.inner.beta.fill_(2.0)
    w = bias()
    assert ((w.abs() > 1e-6).flatten(1).sum(1) == 1).all()
    w.square().sum().backward()
    assert (bias.inner.weight.grad != 0).flatten(1).sum(1).min() > 1
    model = create_model("aft_conv_digits", depth=1, position_bias="single", straight_through=True)
    assert single_positions(model)[0].straight_through


class Module(pl.LightningModule):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images)

    def training_step(self, batch, _index):
        return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _index):
        self.log("val", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def run(model, labels, tmp_path, callback, precision="32-true"):
    images = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    data = DataLoader(TensorDataset(images, labels), batch_size=8)
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        default_root_dir=tmp_path,
        log_every_n_steps=1,
    )
    trainer.fit(Module(model), data, data)
    return trainer


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")
def test_callback_logs_and_warns_when_hardening_costs(tmp_path):
    model = model_with(gamma=4.0)
    for name, parameter in model.named_parameters():
        if "position_bias" not in name and parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    for bias in single_positions(model):
        bias.temperature = 1000.0  # samples are nearly flat, and right by the labels made of them
    with torch.no_grad(), sampled_positions(model):
        labels = model(torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))).argmax(1)
    with pytest.warns(HardeningWarning, match=r"costs \d+\.\d points .* at temperature 1000"):
        trainer = run(model, labels, tmp_path, GumbelHealth(warn_after=1.0))
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("gumbel/")}
    assert logged["gumbel/gap"] == pytest.approx(logged["gumbel/soft_accuracy"] - logged["gumbel/hard_accuracy"])
    assert logged["gumbel/gap"] > 0.01
    assert logged["gumbel/switches"] == 0
    assert logged["gumbel/temperature"] == 1000
    callback = GumbelHealth()
    callback.load_state_dict({"before": position_health(model).position})
    again = GumbelHealth()
    again.load_state_dict(callback.state_dict())
    assert torch.equal(again._before, position_health(model).position)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")
def test_callback_is_silent_on_healthy_and_on_other_models(tmp_path):
    run(model_with(gamma=30.0), torch.randint(0, 10, (16,)), tmp_path, GumbelHealth())
    trainer = run(create_model("vit_digits", depth=1), torch.randint(0, 10, (16,)), tmp_path, GumbelHealth())
    assert not any(name.startswith("gumbel/") for name in trainer.callback_metrics)


@pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")
def test_the_gap_is_measured_in_the_precision_of_validation(tmp_path):
    model = model_with(gamma=30.0)
    found = set()
    model.head.register_forward_hook(lambda _module, _inputs, output: found.add(output.dtype))
    run(model, torch.randint(0, 10, (16,)), tmp_path, GumbelHealth(), precision="bf16-mixed")
    assert found == {torch.bfloat16}
