"""Models through torch.export and ONNX, checked against the model; the files need nothing of ours."""

import json
import subprocess
import sys

import pytest
import torch

from aft_lens.checkpoint import save_checkpoint
from aft_lens.models import create_model
from analyses.export import TOLERANCE, export_model
from analyses.pruning import compact_model, score, select
from analyses.pruning.cutting.compact import conv_mixers
from app.cli import main


@pytest.mark.parametrize(("keep", "budget", "shift"), [(1, "head", -60.0), (1.5, "global", 0.0), (0, "head", 0.0)])
def test_export_agrees_at_another_batch_size(keep, budget, shift, tmp_path):
    torch.manual_seed(0)
    model = create_model("aft_conv_digits", depth=1, position_bias="free").eval()
    compact = compact_model(model, select(score(model, "magnitude"), keep, budget))
    with torch.no_grad():
        for mixer in conv_mixers(compact):
            mixer.position_bias.weight += shift
    results = export_model(compact, torch.randn(4, 1, 8, 8), tmp_path)
    assert [result.format for result in results] == ["torch.export", "onnx"]
    for result in results:
        assert result.max_logit_difference <= TOLERANCE[result.format]
        assert result.path.stat().st_size == result.bytes > 10_000
    assert json.loads((tmp_path / "export.json").read_text())[1]["path"] == "model.onnx"


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("aft_conv_digits", {"position_bias": "free"}),
        ("aft_conv_digits", {"position_bias": "single", "use_query": False}),
        ("aft_conv_digits", {"outside": "none"}),
        ("vit_digits", {}),
    ],
)
def test_dense_models_and_vits_are_exported(name, fields, tmp_path):
    torch.manual_seed(0)
    model = create_model(name, depth=2, **fields).eval()
    for key, parameter in model.named_parameters():
        if key.endswith("gamma"):
            torch.nn.init.normal_(parameter, std=3)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for result in export_model(model, torch.randn(4, 1, 8, 8), tmp_path):
        assert result.max_logit_difference <= TOLERANCE[result.format]
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("pruned", [False, True])
def test_the_files_need_pytorch_alone(pruned, tmp_path, capsys):
    torch.manual_seed(0)
    model = create_model("aft_conv_digits", depth=1, position_bias="free").eval()
    if pruned:
        model = compact_model(model, select(score(model, "magnitude"), 2))
    path = save_checkpoint(tmp_path / "c", model, data={"name": "digits"}, recipe={}, seed=0, metrics=[])
    assert main(["export", str(path), "--out", str(tmp_path / "out")]) == 0
    assert "max |Δlogit|" in capsys.readouterr().out
    code = (
        "import sys, torch\n"
        "class Block:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.split('.')[0] in ('aft_lens', 'analyses'): raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "print(tuple(torch.export.load(sys.argv[1]).module()(torch.zeros(5, 1, 8, 8)).shape))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out" / "model.pt2")], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "(5, 10)", done.stderr[-2000:]


def test_export_refuses_what_it_would_get_wrong(tmp_path):
    model = create_model("aft_conv_digits", depth=1, position_bias="free").eval()
    images = torch.randn(3, 1, 8, 8)
    with pytest.raises(ValueError, match="aft_full, which has no form to export"):
        export_model(create_model("aft_full_digits", depth=1), images, tmp_path)
    compact = compact_model(model, select(score(model, "magnitude"), 1))
    with pytest.raises(ValueError, match="at least 2"):
        export_model(compact, images[:1], tmp_path)
    compact = compact_model(model, select(score(model, "magnitude"), 2))
    with torch.no_grad():
        conv_mixers(compact)[0].position_bias.weight.fill_(-60)
    with pytest.raises(ValueError, match="clamp them"):
        export_model(compact, images, tmp_path)
