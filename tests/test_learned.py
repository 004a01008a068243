"""How much of a bias is learned: where runs start is kept, read and compared."""

import json

import numpy as np
import pytest
import torch
from lightning_advice import LIGHTNING_ADVICE
from PIL import Image
from scipy.stats import pearsonr, spearmanr

from aft_lens.checkpoint import load_checkpoint, read_first, read_snapshots
from aft_lens.data import load_data
from aft_lens.layers.position_bias import ConvBiasSpec, conv_bias
from aft_lens.models import VisionModel, create_model, directions, model_config
from aft_lens.training import read_recipe, train
from analyses.learned.measure import learned, nearness
from app.cli import main


def tiny(**changes):
    torch.manual_seed(0)
    return create_model("aft_conv_digits", depth=2, embed_dim=16, num_heads=2, **changes)


@pytest.mark.parametrize("kind", ["reparameterized", "single"])
def test_the_start_scales_the_draw_and_leaves_w(kind):
    torch.manual_seed(3)
    large = conv_bias(kind, ConvBiasSpec(2, (5, 5), start=1.0))
    torch.manual_seed(3)
    small = conv_bias(kind, ConvBiasSpec(2, (5, 5)))
    torch.testing.assert_close(small.direction(), 0.05 * large.direction())
    torch.manual_seed(4)
    small.redraw()
    assert 0.02 < float(small.direction().detach().std()) < 0.08
    with pytest.raises(ValueError, match="bias_start must be above 0, got 0"):
        conv_bias(kind, ConvBiasSpec(2, (5, 5), start=0.0))


def test_a_model_is_built_from_its_start():
    near, far = (VisionModel(model_config("aft_conv_digits", bias_start=start)) for start in (0.05, 1.0))
    sizes = [float(next(iter(directions(model).values())).std()) for model in (near, far)]
    assert sizes[1] / sizes[0] == pytest.approx(20, rel=0.3)


def test_what_is_learned_is_pearsons_and_counted():
    model = tiny()
    first = {name: w.clone() for name, w in directions(model).items()}
    same = learned(model, first)
    assert same.start_correlation == pytest.approx(1)
    assert same.stayed == 1
    assert same.chance == pytest.approx(1 / 49)
    assert "mostly their random start" in same.words
    with torch.no_grad():
        model.blocks[1].mixer.position_bias.weight.normal_()
        model.blocks[0].mixer.position_bias.weight[0] = 0.0
    found = learned(model, first)
    now = directions(model)["blocks.1.mixer.position_bias"]
    for head in range(2):
        expected = pearsonr(now[head].flatten(), first["blocks.1.mixer.position_bias"][head].flatten()).statistic
        assert found.correlation[1, head] == pytest.approx(expected, abs=1e-6)
    assert np.isnan(found.correlation[0, 0])
    assert found.correlation[0, 1] == pytest.approx(1)
    assert found.cells(0)[0] == "1.00"


def test_no_start_no_verdict():
    assert learned(tiny(), {}) is None
    first = directions(tiny())
    assert learned(create_model("vit_digits", depth=2, embed_dim=16, num_heads=2), first) is None


def test_nearness_is_spearmans():
    y, x = np.mgrid[-3:4, -3:4]
    near = torch.tensor(-np.hypot(y, x))
    noise = torch.randn(7, 7, generator=torch.Generator().manual_seed(0))
    found = nearness([torch.stack([near.float().exp(), -near.float(), noise, torch.zeros(7, 7)])])
    assert found[0, :2] == pytest.approx([1, -1])
    assert found[0, 2] == pytest.approx(spearmanr(noise.flatten(), near.flatten()).statistic)
    assert np.isnan(found[0, 3])


@pytest.mark.filterwarnings(*LIGHTNING_ADVICE)
def test_a_run_keeps_its_start_and_the_command_reads_it(tmp_path, capsys):
    changes = ("model.depth=1", "model.embed_dim=16", "model.num_heads=2", "trainer.epochs=1")
    run = train(read_recipe("digits-conv", *changes, "model.bias_start=0.05"), tmp_path / "run", progress=False)
    first = read_first(run)
    assert list(first) == ["blocks.0.mixer.position_bias"]
    assert float(first["blocks.0.mixer.position_bias"].std()) == pytest.approx(0.05, rel=0.2)
    assert list(read_snapshots(run)) == [0]
    expected = learned(load_checkpoint(run).model, first)
    assert 0.1 < expected.start_correlation < 1
    assert main(["bias", str(run), "--out", str(tmp_path / "out")]) == 0
    assert expected.words in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "bias.json").read_text())
    assert record["learned"]["start_correlation"] == pytest.approx(expected.start_correlation, rel=1e-4)
    assert f"Position biases, {expected.words}" in (tmp_path / "out" / "bias.html").read_text()


def test_cifar_is_read_from_unpacked_files(tmp_path):
    generator = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 2)):
        for name in ("frog", "cat"):
            folder = tmp_path / "cifar10" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    data = load_data("cifar10", root=tmp_path)
    assert data.classes == ["cat", "frog"]
    assert (len(data.train) + len(data.val), len(data.test)) == (40, 4)
    pixels = np.asarray(Image.open(tmp_path / "cifar10" / "test" / "frog" / "01.png"))
    assert np.array_equal(data.test.images[3].permute(1, 2, 0).numpy(), pixels)
    again = load_data("cifar10", root=tmp_path)
    assert torch.equal(again.train.images, data.train.images)
