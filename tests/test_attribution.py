"""Checks of attributions on models whose answer is known, and receptive fields against whole Jacobians."""

import json

import numpy as np
import pytest
import torch
from test_compact import MODELS, images
from torch import nn

from aft_lens.extraction import as_reader
from aft_lens.extraction.plain import plain_vit
from aft_lens.models import create_model
from analyses.ablate.calibration import calibrate
from analyses.ablate.rung import Rung
from analyses.attribution import check_attributions
from analyses.attribution.checks import cascade, check, curves, parts
from analyses.attribution.methods import METHODS, integrated_gradients
from analyses.compact.convert import compact_vit
from analyses.field.energy import receptive_fields
from app.cli import main


class Linear(nn.Module):
    """Two classes by a linear map of the pixels: its attribution is weight x image."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.flat, self.map = nn.Flatten(), nn.Linear(64, 2)

    def forward(self, images):
        return self.map(self.flat(images))


def noise(count=12, seed=1):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_a_right_attribution_passes_both_checks():
    found = check_attributions(Linear().eval(), noise(32))
    assert {one.method for one in found.checks} == set(METHODS)
    first = found.checks[0]
    assert first.knows_image
    assert first.stages[0].correlation == 1
    assert first.stages[1].interval[1] < 0.9  # the image, which no weight changes, is a factor of it
    saliency = found.checks[1]
    assert saliency.knows_weights  # its values are the weights' alone
    assert "beat random pixels" in str(found)


def test_one_that_reads_the_image_alone_does_not_know_the_weights():
    found = check(Linear().eval(), noise(), "pixels", lambda _model, x, _classes: x[:, 0])
    assert [stage.correlation for stage in found.stages] == pytest.approx([1, 1])
    assert not found.knows_weights


def test_one_that_is_noise_does_not_know_the_image():
    generator = torch.Generator().manual_seed(0)
    found = check(
        Linear().eval(), noise(), "noise", lambda _model, x, _classes: torch.rand(x[:, 0].shape, generator=generator)
    )
    assert not found.knows_image
    assert found.knows_weights  # but for no reason of its own: it is nothing twice


def test_curves_are_what_they_say():
    """Deleting everything and inserting nothing is a grey image, the ends are the same for every order."""
    model, x = Linear().eval(), noise()
    classes = model(x).argmax(1)
    values = integrated_gradients(model, x, classes)
    torch.testing.assert_close(values.sum((1, 2)), (model(x) - model(0 * x)).gather(1, classes[:, None])[:, 0])
    deleted, inserted = curves(model, x, values), curves(model, x, values, insert=True)
    whole = model(x).softmax(1).amax(1).mean().item()
    grey = model(0 * x).softmax(1).gather(1, classes[:, None]).mean().item()
    for curve, ends in ((deleted, (whole, grey)), (inserted, (grey, whole))):
        for line in (curve.attributed, curve.random):
            assert (line[0], line[-1]) == pytest.approx(ends, abs=1e-6)
    area = np.trapezoid(deleted.attributed - deleted.random, deleted.share)
    assert deleted.gain == pytest.approx(float(area), abs=1e-6)
    with pytest.raises(ValueError, match="cell must divide"):
        curves(model, x, values, cell=3)
    with pytest.raises(ValueError, match="2 or more"):
        check_attributions(model, x[:1])


def test_weights_go_from_the_classifier_down_and_come_back():
    model = create_model("vit_digits", depth=2).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert [name for name, _ in parts(model)] == ["head", "norm", "block 1", "block 0", "stem"]
    stages = cascade(model, noise(2), METHODS["saliency"])
    assert [stage.part for stage in stages] == ["", "head", "norm", "block 1", "block 0", "stem"]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_the_command(tmp_path, capsys):
    assert main(["attribution", "digits-vit", "--images", "3", "--out", str(tmp_path)]) == 0
    assert "attributions checked on 3 images of digits" in capsys.readouterr().out
    record = json.loads((tmp_path / "attributions.json").read_text())
    assert len(record["checks"]) == 2
    assert record["checks"][0]["stages"][-1]["part"] == "stem"


def exact(model, x, place, blocks, grid):
    """Energy by patch of the whole Jacobian of a token after the last block."""
    seen = []
    with blocks[-1].register_forward_hook(lambda _m, _i, output: seen.append(output)):

        def token(image):
            seen.clear()
            model(image)
            return seen[0][0, place]

        jacobian = torch.autograd.functional.jacobian(token, x)  # d 1 c y x
    energy = jacobian.double().square().sum((0, 1, 2))
    patches = energy.unflatten(1, (grid[1], -1)).unflatten(0, (grid[0], -1)).sum((1, 3))
    return (patches / patches.sum()).numpy()


@pytest.mark.parametrize("name", ["timm", "ours"])
def test_fields_are_those_of_the_jacobian(name):
    model = MODELS[name]()
    reader = as_reader(model)
    x = images(reader, 1)
    found, target = receptive_fields(model, [x], draws=600)
    assert target == (2, 2)
    right = exact(model, x, reader.prefix + 2 * 4 + 2, model.blocks, reader.grid)
    np.testing.assert_allclose(found[-1, 0], right, atol=0.03)
    np.testing.assert_allclose(found.sum((2, 3)), 1)


def test_a_compact_model_sees_as_far_as_its_kernel():
    """One layer of 3 x 3 kernels without class token: nothing beyond the neighbours is ever seen."""
    reader = as_reader(MODELS["timm, no class token"]())
    calibration = calibrate(reader, [(images(reader, seed=1), None)])
    heads = {(layer, head): Rung("kernel") for layer in range(2) for head in range(2)}
    model = compact_vit(plain_vit(reader, images(reader, 2)), calibration, heads)
    found, _ = receptive_fields(model, [images(reader)], target=(0, 0))
    assert (found[0, :, 2:] == 0).all()
    assert (found[0, :, :, 2:] == 0).all()
    assert (found[1, :, 2] > 0).any()  # after two, one further
    aft = create_model("aft_conv_digits", depth=2, stem="patch").eval()
    for block in aft.blocks:
        nn.init.zeros_(block.mixer.proj.weight)
    alone, target = receptive_fields(aft, [noise(2)])
    np.testing.assert_allclose(alone[:, :, target[0], target[1]], 1)


def test_the_field_command(tmp_path, capsys):
    assert main(["field", "digits-conv", "digits-vit", "--images", "4", "--out", str(tmp_path)]) == 0
    assert "effective receptive fields over 4 images" in capsys.readouterr().out
    record = json.loads((tmp_path / "field.json").read_text())
    assert [one["model"] for one in record["models"]] == ["digits-conv", "digits-vit"]
    assert len(record["models"][0]["distance"]) == 3
