"""A linear probe gives a ViT without a classifier its classes: known features, libraries' heads, and the command."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tiny_dinov2 import dinov2, save_dinov2
from torchvision.models.vision_transformer import VisionTransformer
from transformers import Dinov2ForImageClassification

from aft_lens.extraction import as_reader
from aft_lens.extraction.adapters.hf_vit import HFReader
from aft_lens.extraction.adapters.timm_vit import TimmReader
from aft_lens.extraction.adapters.torchvision_vit import TorchvisionReader
from aft_lens.models import create_model
from analyses.explain import explain, plan_for
from analyses.explain.position import head_positions
from analyses.explain.probe import FOLDS, ProbedReader, fit_probe
from app.cli import main


def bright_and_dark(count, classes=2):
    """Noise whose level is the class."""
    torch.manual_seed(1)
    labels = torch.arange(count) % classes
    return [(torch.randn(count, 3, 28, 28) / 3 + labels[:, None, None, None], labels)]


@torch.no_grad()
def test_features_are_what_a_classifier_reads():
    images = bright_and_dark(3)[0][0]
    bare, headed = dinov2(), dinov2(Dinov2ForImageClassification)
    torch.testing.assert_close(HFReader(bare).features(images), bare(images).pooler_output)
    features = HFReader(headed).features(images)
    torch.testing.assert_close(headed.classifier(features), headed(images).logits)
    tiny = {"embed_dim": 32, "depth": 1, "num_heads": 2, "img_size": 32}
    for classes in (5, 0):
        model = timm.create_model("vit_tiny_patch16_224", num_classes=classes, **tiny).eval()
        pooled = model.forward_head(model.forward_features(images := torch.randn(2, 3, 32, 32)), pre_logits=True)
        torch.testing.assert_close(TimmReader(model).features(images), pooled)
    model = VisionTransformer(32, 16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=5).eval()
    torch.testing.assert_close(model.heads(TorchvisionReader(model).features(images)), model(images))
    model = create_model("vit_digits", depth=1).eval()
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(model.head(as_reader(model).features(images)), model(images))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_probe_finds_classes_and_leaves_the_model_as_it_is(classes):
    reader = HFReader(dinov2())
    batches = bright_and_dark(24, classes)
    before = reader.logits(batches[0][0])
    probe = fit_probe(reader, batches)
    probed = ProbedReader(reader, probe)
    with torch.no_grad():
        logits = probed.logits(batches[0][0])
    assert logits.shape == (24, classes)
    assert (logits.argmax(1) == batches[0][1]).float().mean() > 0.9
    torch.testing.assert_close(reader.logits(batches[0][0]), before)
    assert probed.verify(batches[0][0][:2]) < 1e-5
    assert "24 training images" in probe.words
    torch.testing.assert_close(fit_probe(reader, batches).weight, probe.weight)


def test_too_few_images_for_a_probe_are_refused():
    for batches in (bright_and_dark(2 * FOLDS - 1), bright_and_dark(20, 1)):
        with pytest.raises(ValueError, match="raise --probe"):
            fit_probe(HFReader(dinov2()), batches)


def test_curves_alone_start_with_the_heads_that_offsets_explain_most_of():
    reader = HFReader(dinov2())
    batches = bright_and_dark(12)
    probed = ProbedReader(reader, fit_probe(reader, batches))
    plan = plan_for(probed, single=False, edits=["map", "offset"], counts=[4, 1])
    result = explain(probed, batches, batches, plan=plan)
    assert result.single == {}
    assert {edit: len(row) for edit, row in result.cumulative.items()} == {"map": 2, "offset": 2}
    shares = [float(result.positions.variance[layer, head]) for layer, head in result.order]
    assert shares == sorted(shares, reverse=True)
    assert "linear probe: scikit-learn's LogisticRegression" in str(result)
    assert "1 heads at once" in str(result)
    assert result.record()["ordered_by"] == "variance explained"
    for chosen, words in (
        ({"edits": ["none"]}, "edits must be some of map"),
        ({"counts": [0]}, "counts must be from 1 to 4"),
        ({"counts": [5]}, "counts must be from 1 to 4"),
    ):
        with pytest.raises(ValueError, match=words):
            plan_for(probed, **chosen)


def test_a_single_offset_reads_its_source_or_all_where_there_is_none():
    found = head_positions(HFReader(dinov2()), bright_and_dark(3))
    found.maps[0, 0, 3, 4] = 1  # of 7 x 7 offsets: the right neighbour
    read = found.patches("offset", 0, 1)[0].reshape(4, 4, 4, 4)
    for row in range(4):
        for column in range(3):
            assert read[row, column, row, column + 1] == pytest.approx(1, abs=1e-9)
        torch.testing.assert_close(read[row, 3], torch.full((4, 4), 1 / 16, dtype=torch.float64))


def test_the_command_fits_a_probe(tmp_path, capsys):
    save_dinov2(tmp_path / "dino")
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for level, name in enumerate(("dark", "bright")):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(12):
                pixels = rng.integers(100 * level, 100 * level + 60, (30, 28, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / part / name / f"{i}.png")
    out = tmp_path / "out"
    words = ["explain", f"hf:{tmp_path / 'dino'}", "--data", f"folder:{tmp_path / 'data'}", "--images", "8"]
    assert main([*words, "--out", str(out)]) == 2
    assert "--probe 1000" in capsys.readouterr().err
    chosen = ["--probe", "20", "--single", "false", "--edits", "[map,offset]", "--counts", "[2,4]", "--out", str(out)]
    assert main([*words, *chosen]) == 0
    assert "all 4 heads at once" in capsys.readouterr().out
    record = json.loads((out / "explain.json").read_text())
    assert record["accuracy"] == 1
    assert record["probe"]["images"] == 20
    assert set(record["cumulative"]) == {"map", "offset"}
    assert (out / "explain.png").stat().st_size > 1000
    assert main([*words, "--labels", "model", *chosen]) == 2
    assert "leave out --labels model" in capsys.readouterr().err
