"""Images without classes: any folder of files, read as they are for looking at, refused where classes are needed."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import UNCOUNTED, load_data
from aft_lens.extraction import Preprocessing, drawn_words, image_batches
from aft_lens.models import create_model
from app.cli import main


def photos(path, count=12):
    """Grey images of rising level, every third in a folder of its own."""
    for i in range(count):
        folder = path / f"n{i}" if i % 3 == 0 else path
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9 + i, 12), 10 * i, np.uint8)).save(folder / f"{i:02}.png")
    (path / "notes.txt").write_text("no image")
    (path / "__MACOSX").mkdir()
    Image.new("L", (8, 8)).save(path / "__MACOSX" / "00.png")
    return path


def test_every_image_below_the_folder_is_read_once(tmp_path):
    data = load_data(f"images:{photos(tmp_path)}", img_size=8, labelled=False)
    assert data.classes == []
    assert len(data.train) == len(data.val) == len(data.test) == 12
    levels = {round(255 * float((image[0] * data.std[0] + data.mean[0]).mean())) for image, _ in data.test}
    assert levels == {10 * i for i in range(12)}
    assert {label for _, label in data.test} == {UNCOUNTED}
    assert data.test.labels.tolist() == [UNCOUNTED] * 12


def test_few_of_many_are_a_fixed_draw_that_says_so(tmp_path):
    way = Preprocessing((8, 8), (0.5,), (0.5,))
    name = f"images:{photos(tmp_path)}"

    def drawn(count):
        batches = image_batches(way, name, images=count, batch_size=2)
        return torch.cat([image for image, _ in batches]), drawn_words(batches)

    five, words = drawn(5)
    again, _ = drawn(5)
    more, _ = drawn(9)
    assert words == "5 of 12 images, drawn with seed 0"
    assert torch.equal(five, again)
    assert torch.equal(five, more[:5])
    assert sorted(float(image.mean()) for image in five) != [float(image.mean()) for image in five]
    assert drawn(40)[1] == "all 12 images"
    assert drawn_words(image_batches(way, "digits", images=3)) == "the first 3 of 360 images"
    assert drawn_words([five]) == ""


def test_errors_name_the_next_step(tmp_path):
    for name in ("images", "images:"):
        with pytest.raises(ValueError, match="must be images:PATH with a folder of image files"):
            load_data(name, labelled=False)
    with pytest.raises(FileNotFoundError, match="holds no image files; give a folder with files that end in"):
        load_data(f"images:{tmp_path}", labelled=False)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load_data(f"images:{tmp_path / 'none'}", labelled=False)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.jpg cannot be read .* remove or replace it"):
        list(load_data(f"images:{tmp_path}", labelled=False).test)


def test_attention_and_locality_take_them_and_others_say_why_not(tmp_path, capsys):
    torch.manual_seed(0)
    model = create_model("vit_digits", depth=1, embed_dim=16, num_heads=2)
    path = save_checkpoint(tmp_path / "c", model, data=load_data("digits").record(), recipe={}, seed=0, metrics=[])
    given = ["--data", f"images:{photos(tmp_path / 'photos')}", "--images", "4", "--out", str(tmp_path / "out")]
    assert main(["attention", str(path), *given]) == 0
    record = json.loads((tmp_path / "out" / "attention.json").read_text())
    assert (record["images"], record["drawn"]) == (4, "4 of 12 images, drawn with seed 0")
    assert main(["locality", str(path), *given, "--resamples", "2"]) == 0
    record = json.loads((tmp_path / "out" / "locality.json").read_text())
    assert record["sources"][0]["drawn"] == f"{given[1]}: 4 of 12 images, drawn with seed 0"
    capsys.readouterr()
    assert main(["explain", str(path), *given]) == 2
    assert "has no classes, which are needed here; give folder:PATH" in capsys.readouterr().err
    assert main(["evaluate", str(path), *given[:2]]) == 2
    assert "has no classes" in capsys.readouterr().err
