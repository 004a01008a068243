"""The patch stem: Conv2d's map, parameters and gradients, and tokens one after another in memory."""

import inspect
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from aft_lens.layers.patch_embedding import PatchEmbedding
from aft_lens.models import VisionModel, create_model, model_config

SHAPES = [(3, 16, 2, 2, 3), (3, 4, 2, 1, 1), (1, 2, 1, 1, 7), (1, 1, 2, 3, 5), (3, 1, 2, 2, 2), (2, 3, 0, 2, 2)]
"""Channels, patch, batch, rows and columns of patches; one patch an image, one pixel a patch, no image."""


class Elsewhere(torch.Tensor):
    """A tensor that says it is not on the CPU, so that the form for accelerators runs."""

    is_cpu = False


def layouts(image):
    """One image in the memory orders that loaders and crops leave."""
    yield image
    yield image.contiguous(memory_format=torch.channels_last)
    yield F.pad(image, (2, 1, 1, 3))[:, :, 1 : 1 + image.shape[2], 2 : 2 + image.shape[3]]
    yield image.flip(3).transpose(2, 3).contiguous().transpose(2, 3).flip(3)


@pytest.mark.parametrize("kind", [torch.Tensor, Elsewhere])
@pytest.mark.parametrize(("channels", "patch", "batch", "rows", "columns"), SHAPES)
def test_equals_conv2d_with_every_gradient_and_runs_token_by_token(channels, patch, batch, rows, columns, kind):
    torch.manual_seed(0)
    stem = PatchEmbedding(channels, 5, patch).double()
    upstream = torch.randn(batch, 5, rows, columns, dtype=torch.float64)
    for layout in layouts(torch.randn(batch, channels, rows * patch, columns * patch, dtype=torch.float64)):
        image = layout.detach().requires_grad_()
        inputs = (image, stem.weight, stem.bias)
        found = stem(image.as_subclass(kind)).as_subclass(torch.Tensor)
        expected = F.conv2d(image, stem.weight, stem.bias, patch)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert found.flatten(2).transpose(1, 2).is_contiguous(), "the model would copy"
        gradients = torch.autograd.grad(found, inputs, upstream)
        for mine, theirs in zip(gradients, torch.autograd.grad(expected, inputs, upstream), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.Tensor, Elsewhere])
def test_autocast_rounds_what_conv2d_rounds(kind):
    torch.manual_seed(0)
    stem, image = PatchEmbedding(3, 8, 4), torch.randn(2, 3, 8, 12)
    with torch.autocast("cpu", torch.bfloat16):
        found = stem(image.as_subclass(kind)).as_subclass(torch.Tensor)
        assert stem.double()(image.double()).dtype == torch.float64, "autocast leaves float64 alone"
    assert found.dtype == torch.bfloat16
    rounded = [tensor.bfloat16().double() for tensor in (image, stem.weight, stem.bias)]
    expected = F.conv2d(*rounded, 4)  # of the same rounded numbers; the result's own rounding is 2^-9
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=2**-8)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_compiles_in_one_graph_at_several_sizes(device, mixed):
    """Device "meta" traces the form for accelerators where there is none."""
    torch.compiler.reset()
    forward = inspect.unwrap(PatchEmbedding.forward)  # Dynamo does not trace the tests' runtime type checker
    stem = PatchEmbedding(3, 8, 4).to(device)
    compiled = torch.compile(partial(forward, stem), fullgraph=True, backend="aot_eager")
    for batch, rows, columns in ((2, 8, 12), (3, 16, 8), (5, 12, 20)):
        image = torch.randn(batch, 3, rows, columns, device=device, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            found, expected = compiled(image), stem(image)
        assert found.shape == expected.shape == (batch, 8, rows // 4, columns // 4)
        assert found.dtype == expected.dtype
        found.sum().backward()
        assert image.grad is not None
        if device == "cpu":
            torch.testing.assert_close(found, expected)


def test_exports_for_any_batch_size():
    stem = PatchEmbedding(1, 8, 2).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(stem, (torch.randn(3, 1, 6, 4),), dynamic_shapes=({0: batch},)).module()
    image = torch.randn(5, 1, 6, 4)
    torch.testing.assert_close(program(image), stem(image))


def test_models_load_what_a_conv2d_stem_was_saved_as():
    config = model_config("aft_conv_fashion", depth=1, embed_dim=16, num_heads=2, window_size=3)
    old = VisionModel(config).eval()
    old.stem = nn.Conv2d(1, 16, 2, 2)
    model = VisionModel(config).eval()
    assert isinstance(model.stem, PatchEmbedding)
    model.load_state_dict(old.state_dict())
    for size in ((28, 28), (12, 34)):
        image = torch.randn(2, 1, *size)
        torch.testing.assert_close(model(image), old(image))
    image = torch.randn(2, 1, 28, 28, requires_grad=True)
    model(image)[:, 0].sum().backward()
    assert image.grad.abs().min() > 0


def test_first_weights_are_those_of_a_conv2d():
    torch.manual_seed(3)
    mine = PatchEmbedding(3, 8, 4)
    torch.manual_seed(3)
    theirs = nn.Conv2d(3, 8, 4, 4)
    assert torch.equal(mine.weight, theirs.weight)
    assert torch.equal(mine.bias, theirs.bias)
    assert repr(mine).startswith("PatchEmbedding(3, 8, kernel_size=(4, 4), stride=(4, 4)")


def test_images_that_do_not_fit_are_refused():
    stem = PatchEmbedding(3, 8, 4)
    with pytest.raises(ValueError, match="3 channels and sides that are multiples of the patch 4, got 1 x 8 x 8"):
        stem(torch.randn(2, 1, 8, 8))
    with pytest.raises(ValueError, match="got 3 x 8 x 10"):
        stem(torch.randn(2, 3, 8, 10))
    with pytest.raises(ValueError, match="image sides must be multiples of patch_size 2"):
        create_model("aft_conv_fashion", depth=1)(torch.randn(1, 1, 28, 27))
