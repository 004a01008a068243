"""`aft-lens sample` and `aft-lens complete`: pictures and text of decoders."""

import json

import numpy as np
import pytest
import torch

from aft_lens.checkpoint import load_decoder, save_checkpoint
from aft_lens.data.sequences import load_sequences
from aft_lens.models import Sampling, create_decoder
from analyses.generation import completed, sampled
from analyses.generation.pictures import CUT, as_symbols, as_text, cut, images, sheet
from app.cli import main

TINY = {"embed_dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture
def pixels(tmp_path):
    torch.manual_seed(0)
    data = load_sequences("digits").record()
    model = create_decoder("aft_local_digits", **TINY)
    return save_checkpoint(tmp_path / "pixels", model, data=data, recipe={}, seed=0, metrics=[])


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox " * 60)
    torch.manual_seed(0)
    data = load_sequences(f"text:{tmp_path}/text.txt", length=32).record()
    model = create_decoder("aft_local_text", **TINY, length=32)
    return save_checkpoint(tmp_path / "text", model, data=data, recipe={}, seed=0, metrics=[])


def test_bytes_are_text_and_back():
    assert as_text(as_symbols("Ä b\n")) == "Ä b\n"
    assert as_text(torch.tensor([0xC3])) == "�"


def test_images_are_laid_out_and_cut_where_nothing_is_given():
    symbols = torch.arange(3 * 12).reshape(3, 12)
    shown = images(symbols, (2, 2, 3))
    assert shown[1, 0, 1].tolist() == [15, 16, 17]
    hidden = cut(shown, 6, (2, 2, 3))
    assert np.array_equal(hidden[:, 0], shown[:, 0])
    assert (hidden[:, 1] == CUT).all()
    grey = images(symbols, (3, 4, 1))
    assert grey.shape == (3, 3, 4, 3)
    both = sheet(grey, 2)
    assert both.shape == (7, 9, 3)
    assert np.array_equal(both[4:, :4], grey[2])
    assert (both[4:, 5:] == 255).all()


def test_completions_keep_what_is_given(pixels):
    loaded, data = load_decoder(pixels), load_sequences("digits")
    found = completed(loaded, data, count=3, times=2, keep=0.4, seed=1)
    assert found.given == 24  # three whole rows of eight
    assert found.symbols.shape == (6, 64)
    assert torch.equal(found.symbols[:, :24], data.test.symbols[:3, :24].long().repeat_interleave(2, 0))
    assert not torch.equal(found.symbols[0], found.symbols[1])
    assert found.picture().shape == ((2 + 2) * 9 - 1, 3 * 9 - 1, 3)
    again = completed(loaded, data, count=3, times=2, keep=0.4, seed=1)
    assert torch.equal(found.symbols, again.symbols)
    with pytest.raises(ValueError, match=r"keep in \[0, 1\)"):
        completed(loaded, data, keep=1)
    with pytest.raises(ValueError, match="has length 64, the model's data 63"):
        data.check_fits(dict(data.record(), length=63))


def test_the_commands_write_what_they_print(pixels, text, tmp_path, capsys):
    assert main(["complete", str(pixels), "--images=2", f"--out={tmp_path}/a"]) == 0
    record = json.loads((tmp_path / "a" / "completions.json").read_text())
    assert np.shape(record["symbols"]) == np.shape(record["truth"]) == (2, 64)
    assert record["given"] == 32
    assert record["command"].startswith("aft-lens complete")
    assert main(["complete", str(text), "--images=2", f"--out={tmp_path}/b"]) == 0
    record = json.loads((tmp_path / "b" / "completions.json").read_text())
    assert record["texts"][0].startswith(record["true_texts"][0][:16])
    line = ["sample", str(text), "--prompt=fox", "--count=2", "--length=50", "--top-k=3", f"--out={tmp_path}/c"]
    assert main(line) == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "c" / "samples.json").read_text())
    assert all(found.startswith("fox") for found in record["texts"])
    assert np.shape(record["symbols"]) == (2, 50)
    assert "top-k 3" in printed
    assert (tmp_path / "c" / "samples.png").stat().st_size > 0
    assert main(["sample", str(pixels), "--prompt=fox"]) == 2
    assert "prompt and length are for text" in capsys.readouterr().err
    assert main(["sample", "digits-conv"]) == 2
    assert "is a vision model" in capsys.readouterr().err


def test_evaluate_prints_bits_with_their_context(pixels, text, tmp_path, capsys):
    assert main(["evaluate", str(pixels), str(text), "digits-vit"]) == 0
    printed = capsys.readouterr().out
    assert "bits/dim" in printed
    assert "from all before it in its image" in printed
    assert "bits/character" in printed
    assert "from the 16 to 32 before it" in printed
    assert "accuracy" in printed
    assert main(["evaluate", str(text), "--context=1", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["unit"], record["symbols"]) == ("character", 60)
    assert record["interval"][0] < record["bits"] < record["interval"][1]


def test_a_cold_sample_is_the_most_probable_one(text):
    found = sampled(load_decoder(text), count=2, length=20, sampling=Sampling(temperature=0))
    assert torch.equal(found.symbols[0], found.symbols[1])
