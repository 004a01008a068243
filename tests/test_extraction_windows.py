"""A Swin transformer's windows in the frame of the whole grid: where they lie, what they weigh, and what reads them."""

import pytest
import timm
import torch
from test_extraction_libraries import images_of, randomised
from torchvision.models import swin_transformer
from transformers import SwinConfig, SwinForImageClassification

from aft_lens.extraction import as_reader, can_resume, entering, open_source
from aft_lens.extraction.adapters.hf_windows import HFWindowReader
from aft_lens.extraction.adapters.timm_windows import TimmWindowReader
from aft_lens.extraction.adapters.torchvision_windows import TorchvisionWindowReader
from aft_lens.extraction.windows import Windows
from analyses.ablate.bench import Bench
from analyses.ablate.calibration import calibrate
from analyses.ablate.rung import Rung
from analyses.attend import attend
from analyses.scan import scan

SWIN = {
    "model_name": "swin_tiny_patch4_window7_224",
    "img_size": 32,
    "window_size": 2,
    "embed_dim": 16,
    "depths": (2, 3),
    "num_heads": (2, 4),
    "num_classes": 3,
}


@pytest.fixture(scope="module")
def swin():
    return randomised(timm.create_model(**SWIN))


@pytest.fixture(scope="module")
def hf_swin():
    config = SwinConfig(image_size=32, window_size=2, embed_dim=16, depths=[2, 3], num_heads=[2, 4], num_labels=3)
    return randomised(SwinForImageClassification(config))


def torchvision_swin(version):
    """Two stages of two and three blocks."""
    block, merging = {
        1: (swin_transformer.SwinTransformerBlock, swin_transformer.PatchMerging),
        2: (swin_transformer.SwinTransformerBlockV2, swin_transformer.PatchMergingV2),
    }[version]
    fields = {"num_classes": 3, "block": block, "downsample_layer": merging}
    return randomised(swin_transformer.SwinTransformer([4, 4], 16, [2, 3], [2, 4], [2, 2], **fields))


@torch.no_grad()
@pytest.mark.parametrize("version", [1, 2])
def test_torchvisions_windows_are_those_of_timm_and_bear_what_is_put_in_their_place(version):
    reader = TorchvisionWindowReader(torchvision_swin(version), side=32, stage=1)
    images = images_of(reader)
    before, weights = reader.logits(images), {}
    with reader.exposed(weights.__setitem__):
        torch.testing.assert_close(reader.logits(images), before, rtol=0, atol=0)
    torch.testing.assert_close(weights[1].sum(-1), torch.ones(3, 4, 16))
    near = Windows.of((4, 4), (2, 2), (1, 1))
    inside = near.whole(torch.ones(3 * 4, 4, 4, 4)) > 0
    assert weights[1][~inside].max() == 0
    place = near.places[3]  # the corner window, cut by both borders
    assert weights[1][:, :, place[0], place[1:]].max() < 1e-6
    with reader.edited(lambda _layer, attention: attention):
        torch.testing.assert_close(reader.logits(images), before)
    with reader.edited(lambda _layer, attention: attention.roll(1, -1)):
        assert (reader.logits(images) - before).abs().max() > 1e-2
    bench = Bench(reader, calibrate(reader, [(images, torch.arange(3))]), [(images, torch.arange(3))], classes=True)
    assert bench.row({(1, 2): Rung("attention")}).loss == pytest.approx(bench.row({}).loss, rel=1e-4)
    features, logits = reader.read(images)
    torch.testing.assert_close(reader.model.head(features), logits)


@torch.no_grad()
def test_windows_of_version_2_and_grids_of_maxvit_are_read():
    second = as_reader(randomised(timm.create_model(**SWIN | {"model_name": "swinv2_tiny_window8_256"})))
    maxvit = TimmWindowReader(timm.create_model("test_maxvit", img_size=64, num_classes=3).eval(), stage=1)
    for reader in (second, maxvit):
        images = images_of(reader, 2)
        assert reader.verify(images) < 1e-5
        before = reader.logits(images)
        with reader.edited(lambda _layer, attention: attention.flip(-1)):
            assert (reader.logits(images) - before).abs().max() > 1e-5
        torch.testing.assert_close(reader.logits(images), before, rtol=0, atol=0)
    weights = {}
    with maxvit.exposed(weights.__setitem__):
        maxvit.logits(images_of(maxvit, 2))
    rows, columns = maxvit.grid
    y = torch.arange(rows * columns) // columns
    side = maxvit.windows[0].places.shape[1] ** 0.5
    read = weights[0][0, 0] > 0
    assert ((y[:, None] // side == y // side) | ~read).all(), "windows are near"
    apart = weights[1][0, 0] > 0
    assert ((y[:, None] % (rows // side) == y % (rows // side)) | ~apart).all(), "the grid's sources are far apart"


@torch.no_grad()
def test_class_attention_is_the_class_tokens_and_says_nothing_by_offset():
    fields = {"img_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 32, "num_heads": 2, "num_classes": 3}
    reader = as_reader(randomised(timm.create_model("cait_xxs24_224", **fields)))
    image = images_of(reader, 1)
    found = attend(reader, image[0])
    assert found.maps.shape == (2, 2, 4, 4)
    assert (found.maps.sum((2, 3)) < 1).all()
    layer = reader.layers[0]
    seen = []
    with layer.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0])):
        reader.logits(image)
    query, key = layer.q(seen[0][:, :1]), layer.k(seen[0])
    right = (query.unflatten(2, (2, 16)).transpose(1, 2) @ key.unflatten(2, (2, 16)).transpose(1, 2).mT) / 4
    torch.testing.assert_close(
        torch.from_numpy(found.maps[0].reshape(2, -1)).float(), right.softmax(-1)[0, :, 0, 1:], rtol=1e-4, atol=1e-6
    )
    before = reader.logits(image)
    with reader.edited(lambda _layer, attention: torch.full_like(attention, 1 / attention.shape[-1])):
        assert (reader.logits(image) - before).abs().max() > 1e-3
    with pytest.raises(ValueError, match="leave target out"):
        attend(reader, image[0], (1, 1))
    with pytest.raises(ValueError, match="nothing can be said by offset; `aft-lens attend`"):
        calibrate(reader, [(image, torch.zeros(1))])


@torch.no_grad()
@pytest.mark.parametrize("library", ["timm", "hf"])
@pytest.mark.parametrize(("stage", "side", "layers", "heads"), [(0, 8, 2, 2), (1, 4, 3, 4)])
def test_windows_lie_where_the_model_cuts_them(swin, hf_swin, library, stage, side, layers, heads):
    reader = TimmWindowReader(swin, stage=stage) if library == "timm" else HFWindowReader(hf_swin, stage=stage)
    images = images_of(reader)
    assert (reader.grid, len(reader.layers), reader.num_heads) == ((side, side), layers, heads)
    assert reader.verify(images) < 1e-5
    entered, windows, weights = {}, {}, {}
    for number, layer in enumerate(reader.layers):
        layer.register_forward_pre_hook(lambda _m, args, number=number: windows.__setitem__(number, args[0]))
    with entering(reader, entered.__setitem__), reader.exposed(weights.__setitem__):
        reader.logits(images)
    for layer in reader.layers:
        layer._forward_pre_hooks.clear()
    for number in range(layers):
        if library == "timm":
            patches = swin.layers[stage].blocks[number].norm1(entered[number]).flatten(1, 2)
        else:
            patches = hf_swin.swin.encoder.layers[stage].blocks[number].layernorm_before(entered[number])
        torch.testing.assert_close(reader.windows[number].cut(patches), windows[number])
        torch.testing.assert_close(reader.windows[number].merged(windows[number]), patches)
        found = weights[number]
        torch.testing.assert_close(found.sum(-1), torch.ones(3, heads, side**2))
        y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))
        shift = number % 2  # half a window
        near = ((y + shift) // 2 == (y[:, None] + shift) // 2) & ((x + shift) // 2 == (x[:, None] + shift) // 2)
        assert found[..., ~near].max() < 1e-6, "nothing is read beyond the window, nor across the border"
        assert found[..., near].min() > 0


def test_the_stage_is_asked_for_or_the_deepest_and_its_name_says_it(swin):
    assert as_reader(swin).source.endswith(",stage=1")
    spec = "timm:swin_tiny_patch4_window7_224"
    reader = open_source(f"{spec},stage=3", pretrained=False)
    assert (reader.source, reader.grid, reader.num_heads) == (f"{spec},stage=3", (7, 7), 24)
    assert open_source(spec, pretrained=False).grid == (14, 14)
    for name, said in (
        (f"{spec},stage=4", "stage must be 0 to 3"),
        (f"{spec},stage=x", "stage must be a number"),
        ("timm:vit_tiny_patch16_224,stage=1", "stage=1 is for Swin, SwinV2 and MaxViT"),
    ):
        with pytest.raises(ValueError, match=said):
            open_source(name, pretrained=False)
    odd = timm.create_model(**{**SWIN, "img_size": 24, "window_size": 4})
    with pytest.raises(ValueError, match="do not fill a grid of"):
        TimmWindowReader(odd, stage=0)


def test_heads_of_windows_are_replaced_and_scanned(swin):
    reader = as_reader(swin)
    batches = [(images_of(reader, 4), torch.arange(4) % 3)] * 2
    assert can_resume(reader, batches[0][0])
    bench = Bench(reader, calibrate(reader, batches), batches, classes=True)
    heads = {(layer, head): Rung("attention") for layer in range(3) for head in range(4)}
    same, gone = bench.row(heads), bench.row({(1, 2): Rung("uniform")})
    assert same.agreement["cosine"] == pytest.approx(1, abs=1e-6)
    assert same.loss == pytest.approx(bench.row({}).loss, rel=1e-4)
    assert gone.agreement["cosine"] < 1 - 1e-5
    found = scan(reader, [images for images, _ in batches])
    assert found.sums.norms.shape[1] == 4
    assert (found.measures.distance[0] < found.measures.flat).all(), "windows are near"


@torch.no_grad()
def test_transformers_swins_come_from_folders(hf_swin, tmp_path):
    hf_swin.save_pretrained(tmp_path)
    held, read = as_reader(hf_swin), open_source(f"hf:{tmp_path},stage=0")
    images = images_of(held)
    assert (held.grid, read.grid, read.source) == ((4, 4), (8, 8), f"hf:{tmp_path},stage=0")
    torch.testing.assert_close(read.logits(images), hf_swin(images).logits)
    features, logits = read.read(images)
    torch.testing.assert_close(hf_swin.classifier(features), logits)
    assert read.verify(images) < 1e-5
    for spec, grid, said in (
        (f"hf:{tmp_path},stage=2", None, "stage must be 0 to 1"),
        (f"hf:{tmp_path},stage=a", None, "stage must be a number"),
        (f"hf:{tmp_path}", (3, 3), "read at its own size"),
    ):
        with pytest.raises(ValueError, match=said):
            open_source(spec, grid=grid)
