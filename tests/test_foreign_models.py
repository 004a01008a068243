"""Other libraries' folders: no code of theirs runs, and no weight stays random in silence."""

import json
import os
import pickle

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

from aft_lens.checkpoint import load_checkpoint
from aft_lens.errors import InputError
from aft_lens.extraction import open_source
from aft_lens.extraction.preprocessing import Preprocessing

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
         "image_size": 32, "patch_size": 8}  # fmt: skip


class Trap:
    def __reduce__(self):
        return os.system, ("touch trapped",)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    ViTForImageClassification(ViTConfig(**SMALL)).save_pretrained(tmp_path / "m")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def with_json(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("kind", [{}, {"model_type": "theirs", "image_processor_type": "Theirs"}])
def test_a_folders_own_code_never_runs_and_nothing_is_asked(folder, monkeypatch, file, kind):
    (folder / "theirs.py").write_text("import os\nos.system('touch trapped')\n")
    with_json(folder / file, auto_map={name: "theirs.X" for name in ("AutoConfig", "AutoModel", "AutoImageProcessor")},
              **kind)  # fmt: skip
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(InputError, match="brings code of its own"):
        open_source(f"hf:{folder}")
    assert not (folder.parent / "trapped").exists()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model."])
def test_weights_whose_names_do_not_fit_are_named_with_what_to_take_off(folder, prefix):
    file = folder / "model.safetensors"
    state = load_file(file)
    save_file({prefix + name: value for name, value in state.items()}, file, metadata={"format": "pt"})
    try:
        model = open_source(f"hf:{folder}").model.state_dict()
    except InputError as error:
        assert f"their names start with {prefix!r}, take that off" in str(error)  # noqa: PT017
    else:
        assert torch.equal(model["classifier.weight"], state["classifier.weight"])


def test_missing_infinite_and_cut_off_weights_are_refused(folder):
    file = folder / "model.safetensors"
    whole, state = file.read_bytes(), load_file(file)
    for content, words in (
        ({name: value for name, value in state.items() if "classifier" not in name}, r"has no classifier\.bias"),
        (state | {"classifier.bias": torch.full((2,), torch.inf)}, r"NaN or infinite in classifier\.bias"),
        (state | {"classifier.weight": torch.zeros(7, 32)}, "cannot be read"),
        (whole[: len(whole) // 2], "cannot be read"),
        (b"", "cannot be read"),
    ):
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            save_file(content, file, metadata={"format": "pt"})
        with pytest.raises(InputError, match=words):
            open_source(f"hf:{folder}")
    (folder / "config.json").write_text('{"model_type": "vit", "hidden_size": "many"}')
    with pytest.raises(InputError, match="cannot be read"):
        open_source(f"hf:{folder}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(folder, dtype):
    ViTForImageClassification.from_pretrained(folder).to(dtype).save_pretrained(folder)
    reader = open_source(f"hf:{folder}")
    assert next(reader.model.parameters()).dtype == torch.float32
    assert reader.verify(torch.randn(1, 3, 32, 32)) < 1e-4


def test_processors_of_other_forms_are_read_or_refused(folder):
    file = folder / "preprocessor_config.json"
    with_json(file, image_mean=0.25, image_std=0.5, image_processor_type="ViTFeatureExtractor")
    assert open_source(f"hf:{folder}").preprocessing == Preprocessing((32, 32), (0.25,) * 3, (0.5,) * 3)
    for fields, words in (({"resample": 1}, "resampling must be one of"), ({"resample": 9}, "9 is not a valid"),
                          ({"image_std": [1, 0, 1]}, "std above 0"), ({"size": {"longest_edge": 9}}, "ask for a grid"),
                          ({"image_processor_type": "Nothing"}, "cannot be read")):  # fmt: skip
        before = file.read_text()
        with_json(file, **fields)
        with pytest.raises(InputError, match=words):
            open_source(f"hf:{folder}")
        file.write_text(before)


def test_an_adapter_alone_and_a_folder_without_its_word_are_told_what_to_do(folder, tmp_path):
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"lora_A": torch.zeros(2, 2)}, lora / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"adapter \(LoRA\) alone"):
        open_source(f"hf:{lora}")
    with pytest.raises(FileNotFoundError, match=r"adapter \(LoRA\)"):
        load_checkpoint(lora)
    with pytest.raises(FileNotFoundError, match=rf"give it as hf:{folder}"):
        load_checkpoint(folder)
    save_for_hf(timm.create_model("test_vit"), str(tmp_path / "t"), safe_serialization=True)
    with pytest.raises(FileNotFoundError, match="give it as timm:local-dir:"):
        open_source(str(tmp_path / "t"))


def test_timm_folders_with_pickles_and_foreign_tensors_are_answered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_for_hf(timm.create_model("test_vit"), "t", safe_serialization=True)
    file = tmp_path / "t/model.safetensors"
    save_file({"other": torch.zeros(2)}, file)
    with pytest.raises(InputError, match=r"cannot be read .*Missing key"):
        open_source("timm:local-dir:t")
    file.unlink()
    (tmp_path / "t/pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="cannot be read"):
        open_source("timm:local-dir:t")
    assert not (tmp_path / "trapped").exists()


def test_ones_own_fine_tuned_timm_model_is_opened_by_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = timm.create_model("test_vit", num_classes=5)
    state = model.state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, "a.pth")
    save_file({f"model.{name}": value for name, value in state.items()}, "b.safetensors")
    for words in ("weights=a.pth", "weights=b.safetensors", "weights=b.safetensors,classes=5"):
        found = open_source(f"timm:test_vit,{words}").model.state_dict()
        assert all(torch.equal(found[name], value) for name, value in state.items())
    (tmp_path / "c.pth").write_bytes(pickle.dumps(Trap()))
    torch.save(Trap, "d.pth")
    for words, said in (("weights=none.pth", "there is no file"), ("weights=c.pth", "cannot be read"),
                        ("weights=d.pth", "cannot be read"), ("classes=5", "give timm:NAME,weights=FILE"),
                        ("weights=a.pth,classes=7", "cannot be read"),
                        ("weights=a.pth,classes=x", "classes must be a number")):  # fmt: skip
        with pytest.raises(InputError, match=said):
            open_source(f"timm:test_vit,{words}")
    assert not (tmp_path / "trapped").exists()
