"""`aft-lens transfer` and `train --start`: checkpoints that load, evaluate and train on."""

from pathlib import Path

import pytest
import torch
import yaml

from aft_lens.checkpoint import load_checkpoint, save_checkpoint
from aft_lens.data import load_data
from aft_lens.models import create_model, model_config
from aft_lens.training import start_model
from analyses import transfer
from app.cli import main

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{line}")
    for line in (".*does not have many workers.*", ".*treespec, LeafSpec.*", "Checkpoint directory .*", ".*litlogger.*")
]
VIT = Path("checkpoints/digits-vit")
TIMM = "timm:deit_tiny_patch16_224"


def test_a_vit_checkpoint_becomes_an_aft_that_trains_on(tmp_path, capsys):
    path = tmp_path / "aft"
    assert main(["transfer", str(VIT), "--to", "digits-conv", "--biases", "relative", "--out", str(path),
                 "--images", "16"]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert "pos_embed (left behind)" in printed
    assert "relative attention over 16 training images of digits" in printed
    loaded, vit = load_checkpoint(path), load_checkpoint(VIT)
    assert loaded.recipe["transfer"] == {
        "source": str(VIT), "pretrained": True, "biases": "relative", "images": 16, "images_of": "digits"
    }  # fmt: skip
    assert torch.equal(loaded.model.blocks[2].mlp[0].weight, vit.model.blocks[2].mlp[0].weight)
    assert all(block.mixer.position_bias().abs().max() > 0.01 for block in loaded.model.blocks)
    assert main(["evaluate", str(path)]) == 0
    out = ["--out", str(tmp_path), "--trainer.epochs=1", "--trainer.limit_batches=1", "--optim.lr=1e-9"]
    assert main(["train", "--recipe", "digits-conv", "--start", str(path), *out]) == 0
    trained = load_checkpoint(tmp_path / "digits-conv").model.state_dict()
    torch.testing.assert_close(trained["blocks.0.mlp.0.weight"], loaded.model.state_dict()["blocks.0.mlp.0.weight"])
    assert f"- start: {path}" in (tmp_path / "digits-conv" / "card.md").read_text()
    assert main(["transfer", str(VIT), "--to", "digits-conv", "--out", str(path)]) == 2
    assert "choose another --out" in capsys.readouterr().err


def test_another_librarys_vit_keeps_its_classes_or_takes_the_datas(tmp_path, capsys):
    arguments = ["transfer", TIMM, "--to", "aft_conv_tiny_11_32", "--pretrained", "false"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    loaded = load_checkpoint(tmp_path / "a")
    assert (loaded.config.num_classes, loaded.config.img_size, loaded.data["name"]) == (1000, 224, "imagenet")
    assert loaded.data["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert "patch_embed.proj" in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "b"), "--data", "digits"]) == 2
    assert "digits has 1 channels, the ViT reads 3" in capsys.readouterr().err


def test_targets_that_do_not_fit_are_refused(tmp_path, capsys):
    for to, words in (
        ("aft_conv_digits", "give --depth 3"),
        ("vit_digits", "aft_conv alone"),
        ("nothing", "a recipe or one of aft_conv_base_25_32"),
    ):
        assert main(["transfer", str(VIT), "--to", to, "--out", str(tmp_path / "no")]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
    assert main(["transfer", str(VIT), "--to", "aft_conv_digits", "--depth", "3", "--out", str(tmp_path / "yes")]) == 0


def test_reproducible_and_the_same_but_for_biases():
    reader = transfer.open_source(str(VIT))
    config, _ = transfer.target("digits-conv", reader, None)
    paper, relative = (
        transfer.transfer(reader, config),
        transfer.transfer(reader, config, relative_on="digits", images=8),
    )
    for (name, ours), theirs in zip(paper.model.state_dict().items(), relative.model.state_dict().values()):
        assert torch.equal(ours, theirs) is (".position_bias." not in name)


def test_a_start_is_interpolated_and_its_head_drawn_anew(tmp_path):
    vit = create_model("vit_digits", depth=1)
    path = save_checkpoint(tmp_path / "vit", vit, data=load_data("digits").record(), recipe={}, seed=0, metrics=[])
    model = start_model(path, model_config("vit_digits", depth=1, img_size=12, num_classes=3))
    assert model.pos_embed.shape == (1, 145, 64)
    assert model.head.weight.shape == (3, 64)
    torch.testing.assert_close(model.blocks[0].mixer.qkv.weight, vit.blocks[0].mixer.qkv.weight)
    with pytest.raises(ValueError, match=r"cls_token: expected \(1, 1, 32\), found \(1, 1, 64\)"):
        start_model(path, model_config("vit_digits", depth=1, embed_dim=32))
    with pytest.raises(ValueError, match=r"missing: blocks\.1\.norm1\.weight \(64,\)"):
        start_model(path, model_config("vit_digits", depth=2))
    other = model_config("vit_digits", depth=1, num_classes=3)
    heads = []
    for drawn in (1, 2):  # whatever was drawn before, the seed alone says what is fresh
        torch.manual_seed(drawn)
        heads.append(start_model(path, other, seed=7).head.weight)
    assert torch.equal(*heads)
    assert not torch.equal(heads[0], start_model(path, other, seed=8).head.weight)
    assert yaml.safe_load((path / "config.yaml").read_text())["model"]["depth"] == 1
