"""Doors for data sets and ViT libraries: what another package adds by entry points is found and used as what ships."""

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from aft_lens.data import DATASETS, is_cropped, load_data, model_input
from aft_lens.extraction import image_batches, open_positions, open_source, stream_relative
from app.cli import main

ADDED = EntryPoints(
    [
        EntryPoint("stripes", "doors.dataset:STRIPES", "aft_lens.datasets"),
        EntryPoint("lab", "doors.vit_adapter", "aft_lens.vit_adapters"),
    ]
)


@pytest.fixture
def added(monkeypatch):
    monkeypatch.setattr("aft_lens.registry.entry_points", ADDED.select)


def test_a_data_set_of_another_package(added, capsys):
    data = load_data("stripes", img_size=16, augment="shift")
    assert (data.classes, data.in_chans, len(data.test)) == (["lying", "standing"], 1, 8)
    image, label = data.test[1]
    assert (image.shape, label) == ((1, 16, 16), 1)
    torch.testing.assert_close(image, model_input(Image.fromarray(data.test.images[1, 0].numpy()), data.record()))
    assert "stripes" in list(DATASETS)
    assert not is_cropped("stripes")
    assert main(["list"]) == 0
    assert "stripes" in capsys.readouterr().out
    with pytest.raises(ValueError, match="'stripes:9' must be stripes alone"):
        load_data("stripes:9")


def test_without_its_package_a_data_set_is_unknown():
    with pytest.raises(ValueError, match=r"'stripes' is unknown; choose one of: .*folder:PATH"):
        load_data("stripes")
    assert is_cropped("stripes"), "images of unknown data come from files"


def test_a_vit_library_of_another_package(added, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    control = open_source("lab:small", pretrained=False, grid=(3, 3))
    assert (control.source, control.grid, control.image_size) == ("lab:small", (3, 3), (24, 24))
    assert stream_relative(control, image_batches(control.preprocessing, "digits", images=2)).error < 1e-5
    with pytest.raises(FileNotFoundError, match=r"put it here as small\.safetensors"):
        open_source("lab:small")
    state = {
        name: torch.ones_like(tensor)
        for name, tensor in open_source("lab:x", pretrained=False).model.state_dict().items()
    }
    save_file(state, "small.safetensors")
    assert float(open_source("lab:small").model.class_token.mean()) == 1
    with pytest.raises(ValueError, match="adapter with open_positions"):
        open_positions("lab:small")
    with pytest.raises(ValueError, match="one of hf:NAME, timm:NAME, torchvision:NAME, lab:NAME"):
        open_source("nobody:small")


def test_no_library_is_imported_before_it_is_asked_for():
    code = "import sys, aft_lens.extraction.adapters; print({'timm', 'transformers'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
