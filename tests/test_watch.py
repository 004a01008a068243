"""Maps logged while a model trains: in a user's own Trainer, in ours, to any logger, and without changing the run."""

import csv
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import timm
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning_advice import LIGHTNING_ADVICE
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from aft_lens import MapLogger
from aft_lens.checkpoint import load_checkpoint, read_first
from aft_lens.extraction import relative_attention
from aft_lens.models import create_model
from aft_lens.training import read_recipe, train
from analyses.learned.measure import learned
from analyses.locality.metrics import measure

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]


class Users(pl.LightningModule):
    """A user's own module around a timm ViT, or an AFT-conv; batches are dictionaries."""

    def __init__(self, model):
        super().__init__()
        self.loss, self.inner = nn.CrossEntropyLoss(), nn.ModuleDict({"backbone": model})

    def training_step(self, batch, _):
        return self.loss(self.inner["backbone"](batch["image"]), batch["label"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.5)


def vit():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=3,
        drop_rate=0.1,
    )  # fmt: skip


def aft():
    torch.manual_seed(0)
    return create_model("aft_conv_digits", depth=2, embed_dim=16, num_heads=2, in_chans=3, num_classes=3, img_size=16)


def loader():
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(12, 3, 16, 16, generator=generator), torch.arange(12) % 3
    return DataLoader([{"image": x, "label": y} for x, y in zip(images, labels)], 4)


def fit(model, loggers, callbacks, epochs=2, seed=5):
    torch.manual_seed(seed)
    module = Users(model)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=loggers, callbacks=callbacks, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(module, loader())
    return module


class Keeps(CSVLogger):
    """A logger that takes images, as Weights & Biases' does."""

    def __init__(self, folder):
        super().__init__(folder)
        self.images = []

    def log_image(self, key, images, step=None, **_):
        self.images.append((key, images[0].shape, step))


@pytest.mark.parametrize("make", [vit, aft])
def test_a_users_own_trainer_logs_maps(make, tmp_path):
    loggers = [TensorBoardLogger(tmp_path / "t"), CSVLogger(tmp_path / "c"), Keeps(tmp_path / "k")]
    watch = MapLogger(every=2)
    module = fit(make(), loggers, [watch], epochs=4)
    events = EventAccumulator(loggers[0].log_dir).Reload()
    assert [event.step for event in events.Images("maps")] == [6, 12]
    assert len(events.Scalars("maps/layer1/entropy")) == 2
    logged = (Path(loggers[1].log_dir) / "metrics.csv").read_text().splitlines()
    rows = [row for row in csv.DictReader(logged) if row.get("maps/distance")]
    seen = watch.seen(module)
    assert float(rows[-1]["maps/distance"]) == pytest.approx(float(np.nanmean(seen.distance)), rel=1e-5)
    assert float(rows[-1]["maps/layer0/learned"]) == pytest.approx(float(np.nanmean(seen.learned[0])), rel=1e-4)
    files = sorted(p.name for p in (tmp_path / "c").rglob("*.png"))
    assert files == ["epoch-0001.png", "epoch-0003.png"]
    with Image.open(next((tmp_path / "c").rglob("*.png"))) as drawn:
        assert drawn.size[0] > 100
    assert [(key, step) for key, _, step in loggers[2].images] == [("maps", 6), ("maps", 12)]


def test_what_is_logged_is_what_the_analyses_say():
    images = [torch.randn(3, 3, 16, 16)]
    watch = MapLogger(images)
    model = vit()
    module = fit(model, [], [watch])
    mean = relative_attention(model, images).numpy()
    seen = watch.seen(module)
    np.testing.assert_allclose(seen.distance, measure(mean)["distance"])
    np.testing.assert_allclose(seen.entropy, measure(mean)["entropy"])
    start = relative_attention(vit(), images).numpy()
    for layer, head in np.ndindex(2, 2):
        r = np.corrcoef(start[layer, head].ravel(), mean[layer, head].ravel())[0, 1]
        assert seen.learned[layer, head] == pytest.approx(1 - abs(r), abs=1e-6)
    assert model.training  # as the Trainer had it


def test_a_run_that_is_watched_is_the_same_run(tmp_path):
    bare = fit(vit(), [], [])
    watched = fit(vit(), [CSVLogger(tmp_path)], [MapLogger()])
    for a, b in zip(bare.state_dict().values(), watched.state_dict().values()):
        assert torch.equal(a, b)


def test_our_training_takes_it_and_a_resumed_run_knows_its_start(tmp_path):
    recipe = read_recipe("digits-conv", "trainer.epochs=1", "trainer.accelerator=cpu", "trainer.limit_batches=2")
    watch = MapLogger()
    train(recipe, tmp_path / "run", progress=False, callbacks=[watch])
    longer = replace(recipe, trainer=replace(recipe.trainer, epochs=2))
    again = MapLogger()
    with pytest.warns(UserWarning, match="goes on to 2 epochs"):
        train(longer, tmp_path / "run", progress=False, resume=True, callbacks=[again])
    first = read_first(tmp_path / "run")
    assert again.first.keys() == first.keys()
    assert all(torch.equal(again.first[name], w) for name, w in first.items())
    assert learned(load_checkpoint(tmp_path / "run").model, first).start_correlation < 1
    assert list(tmp_path.rglob("events.out.tfevents*"))


def test_what_it_refuses(tmp_path):
    with pytest.raises(ValueError, match="every must be 1 or more"):
        MapLogger(every=0)
    with pytest.raises(ValueError, match="give MapLogger"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(768, 3)), [], [MapLogger()])
    watch = MapLogger(model=lambda module: module.inner["backbone"])

    class Flat(Users):
        def training_step(self, batch, _):
            return self.loss(self.inner["backbone"](batch[0].unflatten(1, (3, 16, 16))), batch[1])

    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=[watch], enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    data = TensorDataset(torch.randn(4, 768), torch.arange(4) % 3)
    with pytest.raises(ValueError, match="do not start with such; give MapLogger"):
        trainer.fit(Flat(vit()), DataLoader(data, 4))
