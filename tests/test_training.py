"""Training: what is written, resuming to the same weights, Eq. 9, schedules, and errors before any work."""

import io
import logging
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.utilities import rank_zero_warn
from lightning_advice import LIGHTNING_ADVICE

from aft_lens.checkpoint import load_checkpoint, read_metrics, read_snapshots
from aft_lens.data import ResidentBatches, load_data
from aft_lens.models import VisionModel, create_model, model_config
from aft_lens.progress import heard
from aft_lens.training import (
    DataRecipe,
    OptimRecipe,
    Recipe,
    SparsityRecipe,
    TrainerRecipe,
    evaluate,
    list_recipes,
    read_recipe,
    train,
)
from aft_lens.training.classifier import Classifier
from aft_lens.training.epoch_lines import EpochLines
from aft_lens.training.gumbel_health import HardeningWarning
from aft_lens.training.quiet import quiet_lightning
from aft_lens.training.resuming import resume_files
from aft_lens.training.run import state_folder
from aft_lens.training.sparsity import bias_entropy, scheduled_temperature
from app.train import train_parser

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]


def tiny(**changes):
    fields = {"depth": 2, "embed_dim": 16, "num_heads": 4, "position_bias": "single", "window_size": 3}
    recipe = Recipe(
        model=model_config("aft_conv_digits", **fields),
        data=DataRecipe(augment="shift"),
        optim=OptimRecipe(lr=0.005, warmup_epochs=1),
        trainer=TrainerRecipe(epochs=3, accelerator="cpu", limit_batches=4),
        seed=3,
    )
    return replace(recipe, **changes)


def weights(path):
    return load_checkpoint(path).model.state_dict()


def test_a_run_is_a_checkpoint_with_metrics_and_snapshots(tmp_path):
    recipe = tiny(sparsity=SparsityRecipe(entropy_weight=0.01))
    path = train(recipe, tmp_path / "run", progress=False)
    rows = read_metrics(path)
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    for key in ("train_loss", "val_accuracy", "val_loss", "entropy/mean", "entropy/layer_1", "images_per_second"):
        assert all(math.isfinite(row[key]) for row in rows), key
    for key in ("gumbel/margin", "gumbel/temperature", "gumbel/switches"):
        assert key in rows[-1]
    assert sorted(read_snapshots(path)) == [0, 1, 2]
    saved = load_checkpoint(path)
    assert saved.seed == 3
    assert saved.recipe["sparsity"]["entropy_weight"] == 0.01
    assert saved.data["name"] == "digits"
    assert list((state_folder(path) / "tensorboard").glob("events*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_resumes(tmp_path, number):
    assert_stops(tmp_path, 1, lambda process: process.send_signal(number))


def test_two_processes_stop_together_when_the_second_hears_a_signal(tmp_path):
    def tell(process):
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
        os.kill(int(children.split()[0]), signal.SIGTERM)

    assert_stops(tmp_path, 2, tell)


def assert_stops(folder, processes, tell):
    """Start a training, `tell` it to stop after an epoch, and look at what it says and leaves."""
    options = ["--recipe=digits-single", "--model.depth=1", "--model.embed_dim=16", "--trainer.epochs=40"]
    options += [f"--trainer.devices={processes}", "--trainer.accelerator=cpu", "--name=run", f"--out={folder}"]
    command = [sys.executable, "-m", "app.cli", "train", *options]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job would ignore Ctrl-C
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    while not list(state_folder(folder / "run").glob("epoch=*.ckpt")):
        assert process.poll() is None
        time.sleep(0.05)
    tell(process)
    said = process.communicate(timeout=300)[1]
    whole = max(resume_files(state_folder(folder / "run")))
    assert process.returncode == 1
    assert said.count(f"run stopped with {whole} of 40 epochs: go on with --resume") == 1
    assert 1 <= whole <= len(read_metrics(folder / "run")) < 40


def test_lightning_still_asks_the_device_where_stopping_expects_it():
    assert callable(_TrainingEpochLoop._broadcast_sigterm_tensor)


def test_resident_data_trains_as_loaded_data_does(tmp_path):
    def run(resident):
        data = DataRecipe(batch_size=1257, resident=resident)
        recipe = tiny(data=data, model=model_config("aft_conv_digits", depth=1, embed_dim=16, num_heads=2))
        return read_metrics(train(recipe, tmp_path / str(resident), progress=False))

    for one, other in zip(run(False), run(True), strict=True):
        assert one["val_accuracy"] == pytest.approx(other["val_accuracy"], abs=0.01)
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
        assert other["images_per_second"] > 0


def test_training_starts_from_given_weights(tmp_path):
    recipe = tiny(optim=OptimRecipe(lr=1e-9, min_lr=0))
    start = VisionModel(recipe.model)
    found = weights(train(recipe, tmp_path / "run", progress=False, start=start))
    for name, value in start.state_dict().items():
        if not name.startswith("stem."):
            torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("word", "expected"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("4", 4)])
def test_limits_on_the_command_line_are_numbers_or_shares_of_batches(word, expected):
    chosen = train_parser().parse_args([f"--trainer.limit_batches={word}"])
    assert chosen.trainer.limit_batches == expected
    assert type(chosen.trainer.limit_batches) is type(expected)


def test_resident_data_needs_one_device_and_process():
    for words in ({"repeats": 3}, {"workers": 1}):
        with pytest.raises(ValueError, match=r"data\.resident needs repeats 1 and workers 0"):
            DataRecipe(resident=True, **words)


def test_position_biases_have_no_decay_and_a_rate_of_their_own():
    optim = OptimRecipe(lr=0.01, bias_lr_scale=7.0, weight_decay=0.3)
    classifier = Classifier(tiny(optim=optim), load_data("digits"))
    classifier.trainer = SimpleNamespace(world_size=1, scaler=None)
    groups = classifier.configure_optimizers()["optimizer"].param_groups
    found = {id(p): (group["weight_decay"], group["initial_lr"]) for group in groups for p in group["params"]}
    for name, parameter in classifier.model.named_parameters():
        decay, rate = found[id(parameter)]
        own = ".position_bias." in name
        assert rate == pytest.approx(0.07 if own else 0.01), name
        assert decay == (0.0 if own or parameter.ndim < 2 else 0.3), name


def test_ema_is_saved(tmp_path):
    recipe = tiny(optim=OptimRecipe(lr=0.005, ema=0.9))
    averaged = weights(train(recipe, tmp_path / "ema", progress=False))
    plain = weights(train(tiny(optim=OptimRecipe(lr=0.005)), tmp_path / "plain", progress=False))
    assert any(not torch.equal(averaged[name], plain[name]) for name in plain)
    assert all(torch.isfinite(value).all() for value in averaged.values())


def test_mixing_smoothing_and_accumulation_train(tmp_path):
    data = DataRecipe(augment="deit", mixup=0.8, cutmix=1.0, label_smoothing=0.1, repeats=3)
    recipe = tiny(data=data, optim=OptimRecipe(accumulate=2), trainer=TrainerRecipe(1, "cpu", limit_batches=4))
    rows = read_metrics(train(recipe, tmp_path / "run", progress=False))
    assert math.isfinite(rows[0]["train_loss"])


def test_runs_that_cannot_begin_or_diverge_say_why(tmp_path):
    def refused(words, run, name="run"):
        with pytest.raises((ValueError, FileExistsError), match=words):
            train(run, tmp_path / name, progress=False)

    one = TrainerRecipe(1, "cpu", limit_batches=1)
    refused(r"data\.batch_size is 2000 on 1 processes", tiny(data=DataRecipe(batch_size=2000), trainer=one))
    refused(r"trainer\.limit_batches 0", tiny(trainer=TrainerRecipe(1, "cpu", limit_batches=0)))
    if not torch.cuda.is_available():
        refused(r"trainer\.accelerator, devices or strategy", tiny(trainer=replace(one, accelerator="gpu")))
    assert not list(tmp_path.iterdir())
    for name, lr in (("run", 1e3), ("lost", 1e30)):
        wild = tiny(optim=OptimRecipe(lr=lr, clip=0.0), trainer=TrainerRecipe(1, "cpu", limit_batches=8))
        refused(r"training diverged in epoch 0 \(train_loss is nan.*lower optim\.lr", wild, name)
        refused(rf"{name}\.state is of a run in its first epoch", tiny(trainer=one), name)
    with pytest.warns(UserWarning, match=r"optim\.ema 0\.999 averages over about 1,000 steps and the run has 1"):
        train(tiny(optim=OptimRecipe(ema=0.999), trainer=one), tmp_path / "ema", progress=False)


def test_model_and_data_must_fit(tmp_path):
    with pytest.raises(ValueError, match=r"model\.num_classes must be 10"):
        train(tiny(model=model_config("aft_conv_digits", num_classes=7)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_entropy_of_equation_9():
    model = create_model("aft_conv_digits", position_bias="free", depth=1, num_heads=2)
    weight = model.blocks[0].mixer.position_bias.weight
    with torch.no_grad():
        weight[0] = 0.0
        weight[1] = 0.0
        weight[1, 0, 0] = 50.0
    (entropy,) = bias_entropy(model)
    assert entropy[0].item() == pytest.approx(math.log(49), rel=1e-6)
    assert entropy[1].item() == pytest.approx(0.0, abs=1e-6)
    entropy.sum().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("schedule", ["fixed", "linear", "cosine", "exponential"])
def test_temperature_schedules_start_and_end(schedule):
    recipe = SparsityRecipe(temperature_schedule=schedule, temperature_end=0.1)
    steps = [scheduled_temperature(recipe, 2.0, progress / 10) for progress in range(11)]
    assert steps[0] == pytest.approx(2.0)
    assert steps[-1] == pytest.approx(2.0 if schedule == "fixed" else 0.1)
    assert steps == sorted(steps, reverse=True)


def test_evaluation_counts_by_class():
    torch.manual_seed(0)
    data = load_data("digits")
    model = create_model("aft_conv_digits", depth=1, embed_dim=16, num_heads=2)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.eye(10)[3] * 5)
    result = evaluate(model, data.test, data.classes)
    share = result.by_class[3][1] / result.images
    assert result.accuracy == pytest.approx(share)
    assert result.by_class[3][2] == 1.0
    assert result.accuracy_interval[0] < share < result.accuracy_interval[1]
    logits = torch.cat([model(data.test[i][0].unsqueeze(0)) for i in range(result.images)])
    losses = torch.nn.functional.cross_entropy(
        logits, torch.tensor([label for _, label in data.test]), reduction="none"
    )
    half = 1.959964 * float(losses.detach().std()) / result.images**0.5  # of the mean: over the root of the images
    assert result.loss_interval[1] - result.loss_interval[0] == pytest.approx(2 * half, rel=1e-3)


class Given(torch.nn.Module):
    """Takes an image for its own logits, on the CPU wherever it is, and remembers how it was asked."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.asked = set()

    def forward(self, images):
        self.asked.add((self.weight.device.type, images.device.type, self.training, torch.is_grad_enabled()))
        return torch.zeros(len(images), 2) if images.is_meta else images


def test_an_evaluation_says_what_follows_from_the_logits():
    logits = torch.tensor([[4, 2, 1, 1], [2, 1, 1, 4], [4, 2, 1, 1]]).div(8).log()
    result = evaluate(Given(), list(zip(logits, (0, 0, 1))), ["cat", "dog", "eel"])
    assert (result.images, result.accuracy) == (3, pytest.approx(1 / 3))
    assert result.loss == pytest.approx(5 / 3 * math.log(2))
    assert result.by_class[:2] == [("cat", 2, 0.5), ("dog", 1, 0.0)]
    name, count, accuracy = result.by_class[2]
    assert (name, count, math.isnan(accuracy)) == ("eel", 0, True)
    assert result.confusion == [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    assert str(result).splitlines() == [
        "3 images; intervals 95 %",
        "accuracy   33.33 %  [6.15, 79.23]",
        "loss      1.1552    [0.7024, 1.6081]",
        "  cat                   50.00 %  of 2",
        "  dog                    0.00 %  of 1",
        "  eel                     nan %  of 0",
    ]
    with pytest.raises(ValueError, match=r"^split must hold at least one image, got none$"):
        evaluate(Given(), [], ["cat"])


def test_batches_in_memory_are_evaluated_as_their_split_is():
    data, model = load_data("digits"), create_model("aft_conv_digits", depth=1, embed_dim=16, num_heads=2)
    loaded = evaluate(model, data.test, data.classes)
    resident = evaluate(model, ResidentBatches(data, "test", 100), data.classes)
    assert resident.confusion == loaded.confusion
    assert resident.loss == pytest.approx(loaded.loss, rel=1e-5)


def test_an_evaluation_runs_on_the_device_that_is_asked_for_in_evaluation_mode_without_gradients():
    model = Given().train()
    evaluate(model, [(torch.zeros(2), 0)], ["cat", "dog"], device="meta")
    assert model.asked == {("meta", "meta", False, False)}


@pytest.mark.parametrize("options", [{"progress": True}, {"progress": False}, {}], ids=str)
def test_an_evaluation_tells_how_far_it_has_come_and_shows_a_bar_if_asked(monkeypatch, options):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("aft_lens.progress.PATIENCE", 0.0)
    told = []
    with heard(lambda *words: told.append(words)):
        evaluate(Given(), [(torch.zeros(2), 0)] * 257, ["cat", "dog"], **options)
    assert told == [("evaluate", done, 2) for done in range(3)]
    assert sys.stderr.getvalue().strip().startswith("evaluate:") == options.get("progress", False)


@pytest.mark.parametrize(
    "name", [name for name in list_recipes() if name.startswith("fashion") and "pixels" not in name]
)
def test_fashion_recipes_train(name, tmp_path):
    short = ("model.depth=1", "data.batch_size=8", "trainer.epochs=1", "trainer.limit_batches=1")
    recipe = read_recipe(name, *short, "trainer.accelerator=cpu", "trainer.precision=32-true")
    rows = read_metrics(train(recipe, tmp_path / "run", progress=False))
    assert math.isfinite(rows[0]["train_loss"])


@pytest.mark.parametrize(("scaler", "fused"), [(None, True), (object(), False)])
def test_gradients_are_clipped_before_a_step_that_does_not_scale_them(scaler, fused):
    classifier = Classifier(tiny(), load_data("digits"))
    classifier.trainer = SimpleNamespace(world_size=1, scaler=scaler)
    optimizer = classifier.configure_optimizers()["optimizer"]
    assert all(group["fused"] is fused for group in optimizer.param_groups)
    parameters = [*classifier.parameters()]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    total = sum(parameter.numel() for parameter in parameters) ** 0.5
    for clip, expected in ((None, total), (2 * total, total), (0.5, 0.5)):
        classifier.configure_gradient_clipping(optimizer, clip)
        norm = torch.stack([parameter.grad.norm() for parameter in parameters]).norm()
        torch.testing.assert_close(float(norm), float(expected), rtol=1e-4, atol=0)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_terminal_sees_a_bar_and_a_pipe_a_line_an_epoch(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    numbers = {"train_loss": torch.tensor(0.5), "val_accuracy": torch.tensor(0.25), "gumbel/gap": torch.tensor(1.0)}
    trainer = SimpleNamespace(
        is_global_zero=True, num_training_batches=2, current_epoch=2, max_epochs=20, callback_metrics=numbers
    )
    lines = EpochLines()
    lines.on_train_epoch_start(trainer, None)
    lines.on_train_batch_end(trainer, None)
    lines.on_train_epoch_end(trainer, None)
    told = sys.stderr.getvalue()
    line = r"epoch  3/20  train_loss 0\.5000  val_accuracy 0\.2500  \d\.\d s\n"
    assert re.search(line, told)
    assert ("1/2" in told or "0/2" in told) == (stream is Terminal)
    assert stream is Terminal or re.fullmatch(line, told)


def test_lightning_is_quiet_only_inside_and_our_own_warnings_pass(caplog):
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with quiet_lightning():
        with pytest.warns(HardeningWarning, match="ours"):
            rank_zero_warn("ours", category=HardeningWarning)
        log.info("advice")
    with caplog.at_level(logging.INFO, logger="lightning.pytorch"):
        log.info("outside")
    assert [record.message for record in caplog.records] == ["outside"]
