"""Hook points, the cache, folding by offset, and relative attention of our own models."""

import pytest
import torch

from aft_lens.extraction import (
    OwnReader,
    fold_offsets,
    hook_points,
    relative_attention,
    run_with_cache,
    stream_relative,
    targets_per_offset,
    unfold_offsets,
)
from aft_lens.models import create_model


@pytest.fixture
def vit():
    torch.manual_seed(0)
    model = create_model("vit_digits", depth=2)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def test_cache_returns_named_tensors_and_the_same_logits(vit):
    image = torch.randn(3, 1, 8, 8)
    names = ["blocks.1.mixer.hook_attention", "blocks.0.hook_mixer"]
    logits, cache = run_with_cache(vit, image, names)
    assert list(cache) == ["blocks.0.hook_mixer", "blocks.1.mixer.hook_attention"]
    assert cache[names[0]].shape == (3, 4, 65, 65)
    torch.testing.assert_close(cache[names[0]].sum(-1), torch.ones(3, 4, 65))
    torch.testing.assert_close(logits, vit(image))
    assert all(block.mixer.fused for block in vit.blocks)
    assert not any(module._forward_hooks for module in vit.modules())


def test_every_hook_point_of_an_aft_fires():
    for name in ("aft_conv_digits", "aft_full_digits"):
        model = create_model(name, depth=1).eval()
        _, cache = run_with_cache(model, torch.randn(2, 1, 8, 8), hook_points(model))
        assert set(cache) == set(hook_points(model))
        assert "blocks.0.mixer.hook_key" in cache


def test_a_wrong_name_and_a_silent_hook_are_errors(vit):
    with pytest.raises(ValueError, match="no hook points of this model"):
        run_with_cache(vit, torch.randn(1, 1, 8, 8), ["blocks.0.mixer.hook_key"])
    model = create_model("aft_conv_digits", depth=1, use_query=False).eval()
    with pytest.raises(RuntimeError, match="never fired"):
        run_with_cache(model, torch.randn(1, 1, 8, 8), ["blocks.0.mixer.hook_query"])


def test_folding_sums_pairs_of_the_same_offset():
    rows, columns = 3, 4
    pairs = torch.rand(2, 12, 12, dtype=torch.float64)
    expected = torch.zeros(2, 5, 7, dtype=torch.float64)
    for t in range(12):
        for s in range(12):
            dy, dx = s // columns - t // columns, s % columns - t % columns
            expected[:, dy + rows - 1, dx + columns - 1] += pairs[:, t, s]
    torch.testing.assert_close(fold_offsets(pairs, (rows, columns)), expected)
    ones = fold_offsets(torch.ones(12, 12, dtype=torch.float64), (rows, columns))
    torch.testing.assert_close(ones, targets_per_offset((rows, columns)))
    maps = torch.rand(2, 5, 7, dtype=torch.float64)
    back = fold_offsets(unfold_offsets(maps, (rows, columns)), (rows, columns)) / targets_per_offset((rows, columns))
    torch.testing.assert_close(back, maps)
    with pytest.raises(ValueError, match="must end in 12 x 12"):
        fold_offsets(torch.ones(13, 13), (rows, columns))


def test_relative_attention_streams_to_the_average_of_all_images(vit):
    images = torch.randn(7, 1, 8, 8)
    name = "blocks.{}.mixer.hook_attention"
    _, cache = run_with_cache(vit, images, [name.format(0), name.format(1)])
    whole = torch.stack([cache[name.format(layer)].mean(0) for layer in range(2)]).double()[..., 1:, 1:]
    folded = fold_offsets(whole, (8, 8))
    maps = relative_attention(vit, [images[:4], (images[4:], torch.zeros(3))])
    torch.testing.assert_close(maps, folded / targets_per_offset((8, 8)), rtol=1e-5, atol=1e-8)
    plain = relative_attention(vit, images.split(2), border_corrected=False)
    torch.testing.assert_close(plain, folded / 64, rtol=1e-5, atol=1e-8)
    assert (plain.sum((-1, -2)) < 1).all(), "the class token keeps a share"


def test_extraction_verifies_itself(vit, monkeypatch):
    images = torch.randn(4, 1, 8, 8)
    assert stream_relative(vit, [images]).error < 1e-5
    real = OwnReader.mix
    monkeypatch.setattr(OwnReader, "mix", lambda self, n, x, a: real(self, n, x, a.flip(-1)))
    with pytest.raises(RuntimeError, match="recomputed from the weights"):
        relative_attention(vit, [images])


def test_nan_is_no_agreement(vit, monkeypatch):
    whole = OwnReader.mix
    for layer in range(2):

        def mix(self, number, x, attention, layer=layer):
            found = whole(self, number, x, attention)
            return found * torch.nan if number == layer else found

        monkeypatch.setattr(OwnReader, "mix", mix)
        with pytest.raises(RuntimeError, match=f"layer {layer} recomputed from the weights differ by nan"):
            OwnReader(vit).verify(torch.randn(1, 1, 8, 8))


def test_bootstrap_samples_average_to_the_mean_and_spread(vit):
    sums = stream_relative(vit, torch.randn(24, 1, 8, 8).split(8), resamples=200)
    samples = sums.resampled_average()
    assert samples.shape == (200, *sums.average().shape)
    assert sums.weight.mean() == pytest.approx(24, rel=0.05)
    torch.testing.assert_close(samples.mean(0), sums.average(), rtol=0.05, atol=1e-4)
    assert (samples.std(0) > 0).all()


def test_an_aft_and_no_images_are_refused(vit):
    with pytest.raises(ValueError, match="no attention weights"):
        relative_attention(create_model("aft_conv_digits", depth=1), [torch.randn(1, 1, 8, 8)])
    with pytest.raises(ValueError, match="at least one image"):
        relative_attention(vit, [])


def test_edited_weights_change_the_output_and_identity_does_not(vit):
    reader, image = OwnReader(vit), torch.randn(2, 1, 8, 8)
    before = vit(image)
    with torch.no_grad(), reader.edited(lambda _layer, attention: attention.clone()):
        torch.testing.assert_close(reader.logits(image), before)
    with torch.no_grad(), reader.edited(lambda _layer, attention: torch.full_like(attention, 1 / 65)):
        assert (reader.logits(image) - before).abs().max() > 1e-3
