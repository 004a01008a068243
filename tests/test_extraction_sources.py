"""Opening a source by name, the images it takes, streaming, and errors that name the next step."""

import importlib
import sys
import time
import weakref
from types import SimpleNamespace
from urllib.error import URLError

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import vision_transformer
from torchvision.models.vision_transformer import VisionTransformer
from transformers import BertConfig, ViTConfig, ViTForImageClassification, ViTImageProcessor

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import load_data
from aft_lens.errors import InputError
from aft_lens.extraction import Preprocessing, image_batches, open_source, stream_relative
from aft_lens.extraction.adapters import hub, torchvision_vit
from aft_lens.models import create_model
from app.cli import main

DIGITS = load_data("digits")
VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 16}


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = create_model("vit_digits", depth=2, embed_dim=16, num_heads=2)
    return save_checkpoint(tmp_path / "c", model, data=DIGITS.record(), recipe={}, seed=0, metrics=[])


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def unreachable(*_args, **_kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)


def test_a_checkpoint_of_ours_and_its_random_control(checkpoint):
    reader = open_source(str(checkpoint))
    assert (reader.grid, reader.prefix, reader.data) == ((8, 8), 1, "digits")
    images, labels = next(iter(image_batches(reader.preprocessing, reader.data, images=5)))
    assert torch.equal(images, torch.stack([DIGITS.test[i][0] for i in range(5)]))
    assert labels.tolist() == [DIGITS.test[i][1] for i in range(5)]
    control, again = (open_source(str(checkpoint), pretrained=False, seed=3) for _ in range(2))
    weight = "blocks.0.mixer.qkv.weight"
    assert torch.equal(control.model.state_dict()[weight], again.model.state_dict()[weight])
    assert not torch.equal(control.model.state_dict()[weight], reader.model.state_dict()[weight])
    wide = open_source(str(checkpoint), grid=(4, 12))
    assert (wide.image_size, wide.trained_grid) == ((4, 12), (8, 8))
    assert stream_relative(wide, image_batches(wide.preprocessing, "digits", images=3)).average().shape[2:] == (7, 23)


def test_images_are_resized_coloured_and_normalised():
    way = Preprocessing((6, 9), (0.5, 0.25, 0.0), (0.5, 1.0, 2.0), crop=0.5, interpolation="bicubic")
    white = torch.full((1, 20, 30), 255, dtype=torch.uint8)
    expected = torch.tensor([1.0, 0.75, 0.5]).reshape(3, 1, 1).expand(3, 6, 9)
    torch.testing.assert_close(way.transform()(white), expected)
    half = np.zeros((24, 36, 3), np.uint8)
    half[:, 18:] = 255
    shown = way.transform()(Image.fromarray(half))[0]
    assert shown.shape == (6, 9)
    assert (shown[:, 0] < 0).all()
    assert (shown[:, -1] > 0).all()
    left = np.full((24, 36, 3), 255, np.uint8)
    left[:, 9:27] = 0  # the centre crop keeps the dark middle alone
    assert way.transform()(Image.fromarray(left))[0, :, 1:-1].max() < 0
    assert way.transform(crop=False)(Image.fromarray(left))[0, :, 0].min() > 0
    grey = Preprocessing((4, 4), (0.0,), (1.0,)).transform()(Image.fromarray(half))
    assert grey.shape == (1, 4, 4)
    with pytest.raises(ValueError, match="1 or 3 channels, got 4 and 4"):
        Preprocessing((4, 4), (0.0,) * 4, (1.0,) * 4)
    with pytest.raises(ValueError, match="images must be 1 or more"):
        image_batches(way, "digits", images=0)


def test_streaming_keeps_no_batch(checkpoint):
    reader = open_source(str(checkpoint))
    alive: list[weakref.ref] = []

    def batches():
        for _ in range(6):
            assert sum(reference() is not None for reference in alive) <= 1
            batch = torch.randn(2, 1, 8, 8)
            alive.append(weakref.ref(batch))
            yield batch
            del batch

    assert stream_relative(reader, batches()).images == 12


def test_torchvision_weights_are_interpolated(monkeypatch):
    tiny = {"patch_size": 16, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    torch.manual_seed(0)
    trained = vision_transformer.VisionTransformer(image_size=224, **tiny).state_dict()

    def small(_name, weights=None, image_size=224, **options):
        return vision_transformer.VisionTransformer(image_size=image_size, **tiny, **options)

    real = torchvision_vit.get_model_weights("vit_b_16").DEFAULT
    asked = {}
    fake = SimpleNamespace(
        transforms=real.transforms, meta=real.meta, url=real.url,
        get_state_dict=lambda **options: asked.update(options) or dict(trained),
    )  # fmt: skip
    monkeypatch.setattr(torchvision_vit, "get_model", small)
    monkeypatch.setattr(torchvision_vit, "get_model_weights", lambda _name: SimpleNamespace(DEFAULT=fake))
    reader = open_source("torchvision:vit_b_16", grid=(3, 3))
    assert asked["weights_only"] is True
    assert (reader.image_size, reader.trained_grid) == ((48, 48), (14, 14))
    assert reader.preprocessing == Preprocessing((48, 48), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875)
    state = reader.model.state_dict()
    assert torch.equal(state["conv_proj.weight"], trained["conv_proj.weight"])
    places, old = (s["encoder.pos_embedding"][0] for s in (state, trained))
    torch.testing.assert_close(places[[0, 1, 3, 9]], old[[0, 1, 14, 196]])  # the class token and three corners
    with pytest.raises(ValueError, match="grid must be square"):
        open_source("torchvision:vit_b_16", grid=(3, 4))


def test_timm_by_name():
    reader = open_source("timm:vit_tiny_patch16_224", pretrained=False, grid=(3, 2))
    assert (reader.image_size, reader.grid) == ((48, 32), (3, 2))
    way = reader.preprocessing
    assert (way.size, way.mean, way.crop, way.interpolation) == ((48, 32), (0.5, 0.5, 0.5), 0.9, "bicubic")
    batches = image_batches(way, "digits", images=2)
    assert stream_relative(reader, batches, resamples=2).average().shape == (12, 3, 5, 3)


def test_torchvision_weights_of_ones_own(tmp_path, monkeypatch):
    """A file of three classes, plain and as a trainer wraps it; at another grid its positions are resized."""

    def small(name, *, weights=None, image_size=224, num_classes=1000):
        fields = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
        return VisionTransformer(image_size, 16, num_classes=num_classes, **fields)

    monkeypatch.setattr(torchvision_vit, "get_model", small)
    model = small("vit_b_16", num_classes=3)
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    torch.save({f"model.{key}": one for key, one in model.state_dict().items()}, tmp_path / "wrapped.pth")
    save_file(model.state_dict(), tmp_path / "safe.safetensors")
    for file in ("plain.pth", "wrapped.pth", "safe.safetensors"):
        reader = open_source(f"torchvision:vit_b_16,weights={tmp_path / file}")
        for name, tensor in model.state_dict().items():
            assert torch.equal(reader.model.state_dict()[name], tensor)
    assert open_source(f"torchvision:vit_b_16,weights={tmp_path / 'plain.pth'}", grid=(3, 3)).grid == (3, 3)
    torch.save(model, tmp_path / "pickled.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"conv_proj.weight": torch.ones(2)}, tmp_path / "part.pth")
    torch.save({**model.state_dict(), "more": torch.ones(2)}, tmp_path / "more.pth")
    for words, said in (
        (f"weights={tmp_path / 'none.pth'}", "there is no file"),
        (f"weights={tmp_path / 'pickled.pth'}", "cannot be read"),
        (f"weights={tmp_path / 'list.pth'}", r"save model\.state_dict\(\) alone"),
        (f"weights={tmp_path / 'part.pth'},classes=3", "cannot be read"),
        (f"weights={tmp_path / 'more.pth'}", "the model has no more"),
        (f"weights={tmp_path / 'plain.pth'},classes=4", "cannot be read"),
        (f"weights={tmp_path / 'plain.pth'},classes=x", "classes must be a number"),
        ("sizes=3", "torchvision:NAME,weights=FILE,classes=N"),
    ):
        with pytest.raises(InputError, match=said):
            open_source(f"torchvision:vit_b_16,{words}")


def test_a_local_hf_folder(tmp_path):
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**VIT, image_size=32))
    model.save_pretrained(tmp_path / "vit")
    with pytest.raises(SystemExit):
        main(["attention", f"hf:{tmp_path / 'vit'}", "--data"])
    bare = open_source(f"hf:{tmp_path / 'vit'}")
    assert (bare.grid, bare.preprocessing) == ((2, 2), None)
    ViTImageProcessor(size={"height": 48, "width": 48}).save_pretrained(tmp_path / "vit")
    reader = open_source(f"hf:{tmp_path / 'vit'}")
    assert (reader.grid, reader.trained_grid) == ((3, 3), (2, 2))
    assert reader.preprocessing == Preprocessing((48, 48), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    name = "vit.layers.0.attention.v_proj.weight"
    assert torch.equal(reader.model.state_dict()[name], model.state_dict()[name])
    assert stream_relative(reader, image_batches(reader.preprocessing, "digits", images=2)).images == 2
    (tmp_path / "vit" / "model.safetensors").rename(tmp_path / "vit" / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"no \.safetensors, and other formats are unpickled"):
        open_source(f"hf:{tmp_path / 'vit'}")
    assert open_source(f"hf:{tmp_path / 'vit'}", pretrained=False).grid == (3, 3)
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="found type bert"):
        open_source(f"hf:{tmp_path / 'bert'}", pretrained=False)


@pytest.mark.parametrize("source", ["timm:vit_tiny_patch16_224", "hf:google/vit-base-patch16-224"])
def test_without_a_network_the_error_says_what_to_do(source, offline):
    with pytest.raises(FileNotFoundError, match=r"could not be fetched .*; connect once, give .*pretrained=False"):
        open_source(source)


def test_torchvision_without_a_network(offline, monkeypatch):
    empty = vision_transformer.VisionTransformer(32, 16, 1, 2, 8, 16)
    monkeypatch.setattr(torchvision_vit, "get_model", lambda *_args, **_options: empty)
    with pytest.raises(FileNotFoundError, match=r"could not be fetched .*vit_b_16-c867db91\.pth.*pretrained=False"):
        open_source("torchvision:vit_b_16")


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("flax:vit", {}, "unknown kind 'flax'; give one of hf:NAME, timm:NAME, torchvision:NAME"),
        ("torchvision:resnet18", {}, "choose one of: vit_b_16"),
        ("torchvision:vit_b_16", {"prefix": 3}, "puts 1 tokens before its patches"),
        ("timm:vit_tny_patch16", {}, "near it are: .*vit_tiny"),
        ("timm:vit_base_patch16_xp_224", {}, "no weights for it"),
        ("timm:resnet18", {"pretrained": False, "grid": (3, 3)}, "has no patches"),
        ("timm:resnet18", {"pretrained": False}, "looked for one of .*; found ResNet with no attention"),
        ("hf:./nowhere", {}, "there is no folder"),
        ("hf:data/models/dinov2-small", {}, "no folder data/models/dinov2-small, and the Hub's names are NAME or ORG/"),
        ("nowhere", {}, "aft-lens list"),
    ],
)
def test_errors_name_what_fits(source, options, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        open_source(source, **options)


@pytest.mark.parametrize("source", ["hf:data/dinov2-small", "timm:deit_tiny_patch16_224"])
def test_a_hub_that_does_not_answer_is_asked_once(source, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "get_session", lambda: SimpleNamespace(head=lambda *_, timeout: asked.append(1 / 0)))
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it tries again"))
    words = "there is no folder data/dinov2-small here" if source.startswith("hf") else "timm:local-dir:PATH"
    with pytest.raises(FileNotFoundError, match=f"could not be fetched .*{words}"):
        open_source(source)
    assert not huggingface_hub.constants.HF_HUB_OFFLINE


def test_a_missing_library_names_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.delitem(sys.modules, "aft_lens.extraction.adapters.timm_vit", raising=False)
    monkeypatch.delattr(importlib.import_module("aft_lens.extraction.adapters"), "timm_vit", raising=False)
    assert main(["attention", "timm:vit_tiny_patch16_224"]) == 2
    assert "pip install 'aft-lens[timm]'" in capsys.readouterr().err


def test_images_that_no_file_describes_are_said_by_mean_and_std(tmp_path, capsys):
    torch.manual_seed(0)
    ViTForImageClassification(ViTConfig(image_size=32, **VIT)).save_pretrained(tmp_path / "vit")
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(image)
    words = ["attend", f"hf:{tmp_path / 'vit'}", str(image), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert "give --mean and --std, or save its image processor" in capsys.readouterr().err
    assert main([*words, "--mean", "0.5", "--std", "[0.2,0.3,0.4]", "--size", "32"]) == 0
    reader = open_source(f"hf:{tmp_path / 'vit'},mean=0.5,std=0.2/0.3/0.4")
    assert reader.preprocessing == Preprocessing((32, 32), (0.5,) * 3, (0.2, 0.3, 0.4))
    for more, said in (
        (["--mean", "0.5"], "give both --mean and --std"),
        (["--mean", "0.5", "--std", "0"], "std above 0"),
        (["--mean", "0.5", "--std", "0.5", "--size", "48"], "takes images of 32 x 32 pixels, --size 48"),
    ):
        assert main([*words, *more]) == 2
        assert said in capsys.readouterr().err
    assert main(["scan", "digits-vit", "--mean", "0.5"]) == 2
    assert "digits-vit says all of it itself" in capsys.readouterr().err
    for wrong, said in (("mean=a", "must be numbers"), ("size=1.5", "size must be"), ("std=nan,mean=1", "finite")):
        with pytest.raises(InputError, match=said):
            open_source(f"hf:{tmp_path / 'vit'},{wrong}")
