"""The guide's table of ViTs that are read, made of the models that are tested: `python tests/test_models_page.py`."""

import sys
from pathlib import Path

import pytest
import timm
import torch
from test_extraction_libraries import HF, TIMM, hf_reader, mae, randomised, timm_reader, torchvision_reader, whole
from test_extraction_windows import torchvision_swin
from transformers import SwinConfig, SwinForImageClassification

from aft_lens.extraction import as_reader
from aft_lens.extraction.adapters.torchvision_windows import TorchvisionWindowReader
from aft_lens.models import create_model
from analyses.result import Table

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "models.md"
START, END = "<!-- table: written by tests/test_models_page.py -->", "<!-- end -->"
REFUSED = {
    "timm:levit_128s": {},
    "timm:coatnet_pico_rw_224": {"img_size": 64},
    "timm:resnet18": {},
}
"""Models whose attention is not read: the page says what is said of them."""
SWIN = {"model_name": "swin_tiny_patch4_window7_224", "img_size": 32, "window_size": 2, "embed_dim": 16,
        "depths": (1, 2), "num_heads": (2, 2)}  # fmt: skip


def readers():
    """Source, class and reader of every model that adapters are tested with."""
    for name in TIMM:
        yield f"`timm:{name}`", timm_reader(name)
    yield "`timm:swin_tiny_patch4_window7_224,stage=N`", as_reader(randomised(timm.create_model(**SWIN)))
    yield (
        "`timm:swinv2_tiny_window8_256,stage=N`",
        as_reader(randomised(timm.create_model(**SWIN | {"model_name": "swinv2_tiny_window8_256"}))),
    )
    yield (
        "`timm:test_maxvit,stage=N` and other MaxViTs",
        as_reader(timm.create_model("test_maxvit", img_size=64, num_classes=3).eval()),
    )
    yield (
        "`timm:cait_xxs24_224`, its class token alone",
        as_reader(randomised(timm.create_model("cait_xxs24_224", img_size=32, depth=1, embed_dim=32, num_heads=2))),
    )
    yield "`torchvision:vit_b_16` and the other ViTs", torchvision_reader()
    for version, name in ((1, "swin_t"), (2, "swin_v2_t")):
        yield f"`torchvision:{name},stage=N`", TorchvisionWindowReader(torchvision_swin(version), side=32)
    for name, (_, model, _) in HF.items():
        yield f"`hf:` {model.__name__}", hf_reader(name)
    for name, words in (
        ("clip", "CLIPModel"),
        ("siglip", "SiglipModel"),
        ("projection", "CLIPVisionModelWithProjection"),
    ):
        yield f"`hf:` {words}, its vision half", as_reader(whole(name))
    yield "`hf:` ViTMAEForPreTraining, nothing masked", as_reader(mae())
    config = SwinConfig(image_size=32, window_size=2, embed_dim=16, depths=[1, 2], num_heads=[2, 2])
    yield (
        "`hf:` SwinForImageClassification, `hf:NAME,stage=N`",
        as_reader(randomised(SwinForImageClassification(config))),
    )
    yield "a checkpoint of ours, `vit_*`", as_reader(randomised(create_model("vit_digits", depth=1)))


def row(source, reader):
    """What the page says of a model; its attention is checked first."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(2, reader.in_chans, *reader.image_size, generator=generator)
    assert reader.verify(images, patches=reader.patches_read) < 1e-4
    with torch.no_grad():
        features, logits = reader.read(images)
    assert features.ndim == 2
    return [source, str(reader.prefix), "no" if logits is None else "yes"]


def table():
    """The table as Markdown."""
    rows = [row(source, reader) for source, reader in readers()]
    return Table(["Model", "Tokens before the patches", "Classifier as tested"], rows, words=1).markdown()


def written():
    """The page with its table as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    return f"{before}{START}\n\n{table()}\n\n{END}{rest.partition(END)[2]}"


def test_the_page_has_every_model_that_is_tested():
    assert PAGE.read_text(encoding="utf-8") == written(), "run: python tests/test_models_page.py"


@pytest.mark.parametrize("source", REFUSED)
def test_what_is_not_read_says_what_to_do(source):
    model = timm.create_model(source.partition(":")[2], **REFUSED[source])
    said = (
        r"looked for one of .* in each block of a timm ViT.*models.md lists|looked for windows and a grid.*as timm:max"
    )
    with pytest.raises(ValueError, match=said):
        as_reader(model)
    assert f"`{source}`" in PAGE.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(PAGE.parents[2]))
    PAGE.write_text(written(), encoding="utf-8")
