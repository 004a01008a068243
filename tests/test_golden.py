"""What models compute, recipes train and criteria keep is what was recorded before the house was redesigned."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from lightning_advice import LIGHTNING_ADVICE
from torch.utils.data import DataLoader, Subset

from aft_lens.checkpoint import load_checkpoint, read_metrics
from aft_lens.data import load_data
from aft_lens.training import read_recipe, train
from analyses.attention import attention_maps
from analyses.bias import position_bias_maps
from analyses.pruning import load_images, prune_to_indexing

ROOT = Path(__file__).parents[1]
GOLDEN = json.loads((ROOT / "tests" / "golden.json").read_text())

pytestmark = [pytest.mark.filterwarnings(line) for line in LIGHTNING_ADVICE]


@pytest.mark.parametrize("name", GOLDEN["checkpoints"])
def test_checkpoint_computes_what_it_did(name):
    before = GOLDEN["checkpoints"][name]
    loaded = load_checkpoint(ROOT / "checkpoints" / name)
    try:
        test = load_data(loaded.data["name"], img_size=loaded.data["img_size"]).test
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with torch.no_grad():
        logits = loaded.model(torch.stack([test[i][0] for i in range(4)]))
    torch.testing.assert_close(logits, torch.tensor(before["logits"]), rtol=1e-4, atol=1e-4)
    if "distance" in before:
        maps = attention_maps(loaded.model, DataLoader(Subset(test, range(32)), 32))
        assert maps.mean_distance.mean(1).tolist() == pytest.approx(before["distance"], rel=1e-5)
    else:
        biases = position_bias_maps(loaded.model)
        assert biases.entropy.mean(1).tolist() == pytest.approx(before["entropy"], rel=1e-5)
        assert abs(biases.maps).max((1, 2, 3)).tolist() == pytest.approx(before["largest"], rel=1e-5)


@pytest.mark.parametrize("name", GOLDEN["trained"])
def test_recipe_trains_to_the_same_weights(name, tmp_path):
    recipe = read_recipe(
        name, "trainer.epochs=2", "trainer.limit_batches=6", "trainer.accelerator=cpu", "model.bias_start=1"
    )
    path = train(recipe, tmp_path / "run", progress=False)
    state, before = load_checkpoint(path).model.state_dict(), GOLDEN["trained"][name]
    squares = sum(float(tensor.double().square().sum()) for tensor in state.values())
    assert squares == pytest.approx(before["squares"], rel=1e-5)
    assert read_metrics(path)[-1]["val_loss"] == pytest.approx(before["val_loss"], rel=1e-4)


@pytest.mark.parametrize("criterion", GOLDEN["pruned"])
def test_criterion_keeps_the_same_offsets(criterion):
    loaded = load_checkpoint(ROOT / "checkpoints" / "digits-conv")
    images = load_images(loaded.data, test=128, calibration=64)
    ladder = prune_to_indexing(
        loaded.model, images.test, 4, criterion=criterion, calibration=images.calibration, batch_sizes=()
    )
    kept = hashlib.sha256(json.dumps(ladder.offsets()).encode()).hexdigest()[:16]
    before = GOLDEN["pruned"][criterion]
    assert (ladder.rows[-1].accuracy, kept) == (before["accuracy"], before["offsets"])
