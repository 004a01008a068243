"""Compact models through torch.export and ONNX, checked against the model."""

import json

import pytest
import torch

from aft_lens.models import create_model
from analyses.pruning import compact_model, score, select
from analyses.pruning.cutting.compact import conv_mixers
from analyses.pruning.evidence.export import TOLERANCE, export_model


@pytest.mark.parametrize(("keep", "budget", "shift"), [(1, "head", -9.0), (1.5, "global", 0.0), (0, "head", 0.0)])
def test_export_agrees_at_another_batch_size(keep, budget, shift, tmp_path):
    torch.manual_seed(0)
    model = create_model("aft_conv_digits", depth=2, position_bias="free").eval()
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


def test_export_refuses_what_it_would_get_wrong(tmp_path):
    model = create_model("aft_conv_digits", depth=1, position_bias="free").eval()
    images = torch.randn(3, 1, 8, 8)
    with pytest.raises(ValueError, match="must be pruned"):
        export_model(model, images, tmp_path)
    compact = compact_model(model, select(score(model, "magnitude"), 1))
    with pytest.raises(ValueError, match="at least 2"):
        export_model(compact, images[:1], tmp_path)
    with torch.no_grad():
        conv_mixers(compact)[0].position_bias.weight.fill_(-60)
    with pytest.raises(ValueError, match="clamp them"):
        export_model(compact, images, tmp_path)
