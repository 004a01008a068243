"""A ViT without the queries and keys of some heads: as exact as the masked one, smaller, and an ordinary checkpoint."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
from tiny_dinov2 import dinov2
from torchvision.models.vision_transformer import VisionTransformer

import aft_lens
from aft_lens.checkpoint import load_checkpoint, save_checkpoint
from aft_lens.extraction import as_reader, open_source
from aft_lens.extraction.plain import plain_vit
from aft_lens.models import ModelConfig, VisionModel, create_model
from analyses.ablate.calibration import calibrate
from analyses.ablate.replacer import Replacer
from analyses.ablate.rung import KINDS, Rung
from analyses.compact.convert import compact_vit, head_words, renormalised, with_classifier
from analyses.compact.forms import PARITY
from analyses.compact.tune import Tuning, tuned
from analyses.export import export_model
from app.cli import main

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
RUNGS = ["offsets:1", "offsets:3", "offsets:12", "offsets:99", "centre:2", "random:1", "rank:2", "map", "kernel",
         "uniform", "mean", "zero", "attention"]  # fmt: skip


def strong(model):
    """Weights large enough for attention that is far from uniform, and residuals that matter."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3, mean=float("norm" in name and name.endswith("weight")))
    return model.eval()


def own():
    return strong(create_model("vit_digits", img_size=32, patch_size=8, in_chans=3, stem="patch", depth=2))


def vision_transformer():
    model = VisionTransformer(32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3)
    return strong(model)


def registers():
    return strong(timm.create_model("vit_small_patch14_reg4_dinov2", **SMALL | {"patch_size": 8, "num_classes": 0}))


MODELS = {
    "ours": own,
    "hf": dinov2,
    "torchvision": vision_transformer,
    "timm": lambda: strong(timm.create_model("vit_tiny_patch16_224", **SMALL)),
    "timm, mean before the norm": lambda: strong(timm.create_model("vit_betwixt_patch16_reg4_gap_256", **SMALL)),
    "timm, no class token": lambda: strong(timm.create_model("vit_medium_patch16_gap_240", **SMALL)),
    "timm, registers": registers,
}


def images(reader, count=4, seed=3):
    return torch.randn(count, reader.in_chans, *reader.image_size, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_a_foreign_vit_is_a_model_of_ours(name):
    reader = as_reader(MODELS[name]())
    x = images(reader)
    model = plain_vit(reader, x[:2])
    features, logits = reader.read(x)
    assert (model.features(x) - features).abs().max() <= PARITY * features.abs().max()
    if logits is not None:
        assert (model(x) - logits).abs().max() <= PARITY * logits.abs().max()
    assert model.config.prefix == reader.prefix


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_compact_is_masked(name):
    """Every kind alone, and all side by side, in every library's model; offsets that lie beyond borders included."""
    reader = as_reader(MODELS[name]())
    found = calibrate(reader, [(images(reader, seed=1), None)])
    x = images(reader)
    model, replacer = plain_vit(reader, x[:2]), Replacer(reader, found)
    heads = [(layer, head) for layer in range(2) for head in range(reader.num_heads)]
    cases = [dict.fromkeys(heads, Rung.read(name)) for name in RUNGS]
    cases += [
        {head: Rung.read(RUNGS[(3 * i + shift) % len(RUNGS)]) for i, head in enumerate(heads)} for shift in range(6)
    ]
    for edits in cases:
        with replacer.replaced(edits):
            right = reader.features(x)
        error = (compact_vit(model, found, edits).features(x) - right).abs().max() / right.abs().max()
        assert error <= PARITY, edits


def test_queries_keys_and_values_are_gone():
    reader = as_reader(own())
    found = calibrate(reader, [(images(reader), None)])
    model = plain_vit(reader, images(reader)[:2])
    edits = {
        (0, 0): Rung.read("offsets:2"),
        (0, 1): Rung.read("mean"),
        (0, 2): Rung.read("zero"),
        (1, 3): Rung.read("map"),
    }
    small = compact_vit(model, found, edits)
    assert small.config.heads == ("offsets:2 mean zero attention", "attention attention attention map")
    c = 64 // 4
    first, second = (block.mixer for block in small.blocks)
    assert first.qkv.weight.shape == ((2 * 1 + 2) * c, 64)  # query and key of one head, value of two
    assert first.proj.weight.shape == (64, 2 * c)
    assert second.qkv.weight.shape == ((2 * 3 + 4) * c, 64)
    assert torch.equal(model.blocks[0].mixer.qkv.weight[3 * c : 4 * c], first.qkv.weight[:c])  # head 3 is left


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A compact DINOv2 in a checkpoint."""
    reader = as_reader(dinov2())
    x = images(reader)
    heads = {(0, 0): "offsets:1", (0, 1): "map", (1, 0): "kernel", (1, 1): "mean"}
    model = aft_lens.compact(dinov2(), [images(reader, seed=1)], heads)
    data = {"name": "lab", "mean": [0.5] * 3, "std": [0.5] * 3, "classes": [], "in_chans": 3, "img_size": 28}
    path = save_checkpoint(tmp_path_factory.mktemp("c") / "c", model, data=data, recipe={}, seed=0, metrics=[])
    return path, model, x


def test_it_loads_without_the_library_and_the_weights(saved, tmp_path):
    path, model, x = saved
    torch.save(x, tmp_path / "x.pt")
    code = (
        "import sys, torch\n"
        "class Block:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('transformers', 'timm'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from aft_lens.checkpoint import load_checkpoint\n"
        "model = load_checkpoint(sys.argv[1]).model\n"
        "torch.save(model(torch.load(sys.argv[2])), sys.argv[3])"
    )
    words = [sys.executable, "-c", code, str(path), str(tmp_path / "x.pt"), str(tmp_path / "y.pt")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert torch.equal(torch.load(tmp_path / "y.pt"), model(x))


def test_it_is_exported_and_checked(saved, tmp_path):
    path, _, x = saved
    found = export_model(load_checkpoint(path).model, x, tmp_path)
    assert [one.format for one in found] == ["torch.export", "onnx"]
    assert all(one.max_logit_difference <= 1e-5 for one in found)


def test_a_checkpoint_says_what_does_not_fit(saved):
    _, model, _ = saved
    with pytest.raises(ValueError, match="must lie on the grid"):
        model.blocks[0].mixer(torch.zeros(1, 10, 16), (3, 3))
    config = model.config
    for change, words in {
        "heads": (("attention", "attention map"), "each of 2 heads"),
        "heads ": (("offsets:0 map", "attention map"), r"offsets:K \(K of 1"),
        "heads  ": (("map map",), "each of 2 blocks"),
        "pool": ("max", "pool must be"),
        "mixer": ("attention", "heads must say what"),
        "prefix_tokens": (0, "token in it where there is one"),
    }.items():
        with pytest.raises(ValueError, match=words[1]):
            replace(config, **{change.strip(): words[0]})
    with pytest.raises(ValueError, match="prefix_tokens must be 1"):
        ModelConfig("aft_conv", prefix_tokens=4)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("timm:vit_relpos_small_patch16_224", "does more than a plain ViT"),
        ("timm:eva02_tiny_patch14_224", "is no plain ViT under the names"),
        ("timm:deit_tiny_distilled_patch16_224", "its classifier is more than one linear map"),
    ],
)
def test_what_is_no_plain_vit_is_refused(model, words):
    name = model.removeprefix("timm:")
    sizes = {"img_size": 28, "patch_size": 7, "embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 3}
    reader = as_reader(strong(timm.create_model(name, **sizes)))
    with pytest.raises(ValueError, match=words):
        plain_vit(reader, images(reader, 2))


def test_a_grid_that_is_not_square_is_refused():
    reader = open_source("timm:vit_tiny_patch16_224", pretrained=False, grid=(2, 3))
    with pytest.raises(ValueError, match="square grid"):
        plain_vit(reader, images(reader, 2))


def test_heads_that_have_no_compact_form():
    with pytest.raises(ValueError, match="has no compact form"):
        head_words({(0, 0): Rung("resample")}, 1, 2, (4, 4))
    with pytest.raises(ValueError, match=r"got 1\.0"):
        head_words({(1, 0): Rung("map")}, 1, 2, (4, 4))
    assert set(KINDS) - {"resample"} <= {Rung.read(name).kind for name in RUNGS}


@torch.no_grad()
def test_another_normalisation_goes_into_the_patches():
    model = plain_vit(as_reader(dinov2()), images(as_reader(dinov2()), 2))
    x = images(as_reader(dinov2()))
    right = with_classifier(model, torch.randn(5, 16), torch.randn(5))(x)
    mean, std, other, scale = (torch.tensor(each)[:, None, None] for each in
                               ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4], [0.1, 0.2, 0.9], [0.5, 0.6, 0.7]))  # fmt: skip
    pair = [[one.flatten().tolist() for one in two] for two in ((mean, std), (other, scale))]
    found = renormalised(model, *pair)((x * std + mean - other) / scale)
    assert right.shape == (4, 5)
    assert torch.allclose(found, right, atol=1e-4, rtol=1e-4)


def test_it_is_trained_further():
    """What is left learns: every parameter has a gradient, and offsets stay as they are."""
    config = ModelConfig(
        "replaced_attention", img_size=16, patch_size=4, in_chans=1, num_classes=3, embed_dim=16, depth=1, num_heads=4,
        heads=("attention offsets:2 kernel mean",), prefix_tokens=2,
    )  # fmt: skip
    model = VisionModel(config)
    model(torch.randn(2, 1, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_distillation_brings_features_back_and_offsets_stay():
    reader = as_reader(own())
    found = calibrate(reader, [(images(reader, seed=1), None)])
    plain = plain_vit(reader, images(reader)[:2])
    model = compact_vit(plain, found, {(0, head): Rung.read("offsets:1") for head in range(4)})
    x = images(reader, 16)
    batches = [(part, torch.arange(4) % 3) for part in x.split(4)]
    before = {name: one.clone() for name, one in model.state_dict().items()}

    def error(one):
        with torch.no_grad():
            return float((one.features(x) - plain.features(x)).square().mean())

    better = tuned(model, plain, batches, Tuning("features", 20, 1e-3))
    assert error(better) < error(model) / 2
    assert all(torch.equal(before[name], one) for name, one in model.state_dict().items()), "a copy is trained"
    for name, one in better.state_dict().items():
        if name.endswith("offset"):
            assert torch.equal(before[name], one)
    again = tuned(model, plain, batches, Tuning("features", 20, 1e-3))
    assert torch.equal(again.features(x), better.features(x))
    labels = torch.cat([of for _, of in batches])
    taught = tuned(model, plain, batches, Tuning("labels", 20, 1e-3))
    with torch.no_grad():
        losses = [F.cross_entropy(one(x), labels) for one in (model, taught)]
    assert losses[1] < losses[0]
    for wrong, words in (({"epochs": 0}, "epochs must"), ({"rate": 0.0}, "rate above 0")):
        with pytest.raises(ValueError, match=words):
            Tuning("features", **wrong)


def test_the_command(tmp_path, capsys):
    record = {"curves": [{"order": "greedy", "heads": [[i // 4, i % 4] for i in range(12)], "within": 5}]}
    (tmp_path / "ablate.json").write_text(json.dumps(record))
    words = ["--images", "24", "--calibration", "16", "--seconds", "0.01", "--batch-sizes", "[1]"]
    out = tmp_path / "out"
    asked = [*words, "--ablation", str(tmp_path / "ablate.json"), "--order", "greedy", "--rungs", "[kernel,mean]"]
    asked += ["--tune", "features", "--tune-images", "32", "--epochs", "1"]
    assert main(["compact", "digits-vit", *asked, "--out", str(out)]) == 0
    assert "5 of 12 heads replaced (least damage beside" in capsys.readouterr().out
    found = json.loads((out / "compact.json").read_text())
    assert [form["name"] for form in found["forms"]] == ["original", "intact", "kernel", "mean", "kernel", "mean"]
    assert [form["tuned"] for form in found["forms"]] == [""] * 4 + ["distilled"] * 2
    assert found["forms"][4]["cosine"] > found["forms"][2]["cosine"]
    assert all(form["parity"] <= PARITY for form in found["forms"])
    assert found["forms"][3]["bytes"] < found["forms"][2]["bytes"] < found["forms"][1]["bytes"]
    model = load_checkpoint(out / "model").model
    assert model.config.heads[:2] == ("kernel kernel kernel kernel", "kernel attention attention attention")
    assert main(["evaluate", str(out / "model"), "--images", "24"]) == 0
    again = ["compact", "digits-vit", *words, "--out"]
    assert main([*again, str(out)]) == 2
    assert "holds a model" in capsys.readouterr().err
    assert main([*again, str(tmp_path / "b"), "--order", "greedy"]) == 2
    assert "order must be explained, deviation or random" in capsys.readouterr().err
