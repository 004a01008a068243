"""How much of a bias is learned: where runs start is kept, read and compared."""

import json

import numpy as np
import pytest
import torch
from lightning_advice import LIGHTNING_ADVICE
from PIL import Image
from scipy.stats import pearsonr, spearmanr

from aft_lens.checkpoint import load_checkpoint, read_first, read_snapshots, save_checkpoint
from aft_lens.data import load_data
from aft_lens.layers.position_bias import ConvBiasSpec, conv_bias
from aft_lens.models import VisionModel, create_model, directions, model_config
from aft_lens.training import read_recipe, train
from analyses.bias import position_bias_maps
from analyses.learned.measure import learned, nearness
from analyses.learned.starts import shared_start
from analyses.maps.mosaic import Cell, cell_text
from analyses.pruning.evidence.agreement import command as agreement_command
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


def with_w(w, **changes):
    """A model whose first layer has the bias w."""
    model = create_model(
        "aft_conv_digits", depth=1, embed_dim=4 * len(w), num_heads=len(w), window_size=w.shape[-1], **changes
    )
    model.blocks[0].get_submodule("mixer.position_bias").assign(w)
    return model


def test_what_a_bias_moves_is_bounded_and_idle_heads_are_told():
    w = torch.zeros(4, 3, 3)
    w[1, 0, 0] = 25.0  # exp(w) - 1 of 7e10
    w[2, 1, 1] = 0.3
    w[3] = 2.0
    found = position_bias_maps(with_w(w))
    sources = 64
    shares = [0.0, 1 - 1 / sources, (np.exp(0.3) / (sources - 1 + np.exp(0.3)) - 1 / sources)]
    shares.append(9 * np.exp(2) / (9 * np.exp(2) + 55) - 9 / sources)
    assert found.moved[0].tolist() == pytest.approx(shares, abs=1e-6)
    assert found.idle[0].tolist() == [True, False, True, False]
    assert found.table().mappings()[0]["idle heads"] == "2 of 4"
    assert found.record()["moved"].max() < 1
    assert found.head_maps().select_heads([2, 1]).idle.tolist() == [[True, False]]
    assert "does nothing" in cell_text(found.head_maps(), Cell(0, 2, 0, 0))
    assert "does nothing" not in cell_text(found.head_maps(), Cell(0, 1, 0, 0))


def test_heads_far_apart_have_scales_of_their_own_and_idle_ones_a_frame():
    w = torch.zeros(4, 3, 3)
    w[0, 0, 0], w[1, 0, 1], w[2, 0, 2] = 25.0, 1.0, 1.0
    figure = position_bias_maps(with_w(w)).figure()
    tiles = figure.axes[:4]
    assert [float(np.abs(tile.images[0].get_array()).max()) for tile in tiles] == [1, 1, 1, 0]
    assert [tile.get_frame_on() for tile in tiles] == [False, False, False, True]
    assert "each head's own scale" in figure.axes[-1].get_ylabel()
    near = position_bias_maps(with_w(torch.linspace(-1, 1, 27).reshape(3, 3, 3))).figure()
    assert near.axes[-1].get_ylabel() == "exp(w) − 1"


def saved(tmp_path, name, seed, *, first=True, **changes):
    torch.manual_seed(seed)
    model = tiny(**changes) if seed == 0 else create_model("aft_conv_digits", depth=2, embed_dim=16, num_heads=2)
    start = directions(model) if first else None
    return save_checkpoint(tmp_path / name, model, data={}, recipe={}, seed=seed, metrics=[], first=start)


def test_models_of_one_draw_are_told_from_others(tmp_path):
    one, twin = saved(tmp_path, "one", 0), saved(tmp_path, "twin", 0, position_bias="single")
    other = saved(tmp_path, "other", 1)
    assert "start from one draw in 2 of 2 layers" in shared_start(one, twin)
    assert shared_start(one, other) == ""
    assert shared_start(one, "timm:vit_tiny") == ""
    old, older = (saved(tmp_path, name, 0, first=False) for name in ("old", "older"))
    assert "one seed (0) and one shape" in shared_start(old, older)
    assert shared_start(old, other) == ""


def test_comparisons_of_heads_refuse_a_shared_draw(tmp_path, capsys):
    one, twin = saved(tmp_path, "one", 0), saved(tmp_path, "twin", 0)
    for path in (one, twin):  # biases that differ from 0, alike in both
        model = load_checkpoint(path).model
        for block in model.blocks:
            block.get_submodule("mixer.position_bias").gamma.data.fill_(1.0)
        data = load_data("digits").record()
        save_checkpoint(path, model, data=data, recipe={}, seed=0, metrics=[], first=read_first(path))
    line = ["match", str(one), str(twin), "--draws", "2", "--components", "2", "--out", str(tmp_path / "out")]
    assert main(line) == 2
    assert "train one with another seed, or give --shared_start true" in capsys.readouterr().err
    assert main([*line, "--shared_start", "true"]) == 0
    assert "Beware: " in capsys.readouterr().out
    with pytest.raises(ValueError, match="start from one draw"):
        agreement_command([one, twin])
    agreement_command([one, twin], draws=2, shared_start=True)
    assert "Beware" in capsys.readouterr().out
