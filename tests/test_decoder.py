"""The autoregressive skeleton with each of Table 4's mixers."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from aft_lens.models import Decoder, DecoderConfig, causal_mixers

TINY = DecoderConfig(
    vocab_size=11, length=24, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.0, window_size=6, bias_rank=4
)
STEADY = [mixer for mixer in causal_mixers() if mixer != "reformer"]
"""Reformer sorts all tokens into its buckets, so that later ones move which earlier ones share one."""
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:reformer_pytorch")


def decoder(mixer, **changes):
    torch.manual_seed(0)
    model = Decoder(replace(TINY, mixer=mixer, **changes))
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


@pytest.mark.parametrize("mixer", causal_mixers())
def test_every_mixer_trains_in_the_same_skeleton(mixer):
    model = decoder(mixer)
    symbols = torch.randint(0, 11, (3, 24))
    first = None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(25):
        loss = F.cross_entropy(model(symbols)[:, :-1].flatten(0, 1), symbols[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
        optimizer.step()
        first = loss.item() if first is None else first
    assert loss.item() < 0.7 * first


@pytest.mark.parametrize("mixer", STEADY)
def test_a_changed_future_changes_no_earlier_logits(mixer):
    model = decoder(mixer).eval()
    symbols = torch.randint(0, 11, (2, 24))
    changed = symbols.clone()
    changed[:, 15:] = (changed[:, 15:] + 1) % 11
    with torch.no_grad():
        before, after = model(symbols), model(changed)
    torch.testing.assert_close(before[:, :15], after[:, :15], atol=1e-5, rtol=1e-5)
    assert (before[:, 15:] - after[:, 15:]).abs().max() > 1e-3


@pytest.mark.parametrize("mixer", STEADY)
def test_shorter_sequences_are_the_start_of_longer_ones(mixer):
    model = decoder(mixer).eval()
    symbols = torch.randint(0, 11, (2, 24))
    with torch.no_grad():
        torch.testing.assert_close(model(symbols[:, :13]), model(symbols)[:, :13], atol=1e-5, rtol=1e-5)


def test_patterns_follow_an_image():
    line, image = decoder("strided_attention"), decoder("strided_attention", grid=(4, 6))
    assert torch.equal(line.blocks[0].mixer.mask, image.blocks[0].mixer.mask)
    image = decoder("local_attention", grid=(4, 6))
    assert not torch.equal(decoder("local_attention").blocks[0].mixer.mask, image.blocks[0].mixer.mask)


def test_unfused_causal_attention_equals_fused():
    model = decoder("attention").eval()
    symbols = torch.randint(0, 11, (2, 24))
    fused = model(symbols)
    for block in model.blocks:
        block.mixer.fused = False
    torch.testing.assert_close(model(symbols), fused, atol=1e-5, rtol=1e-5)


def test_values_that_cannot_be_built_are_named():
    with pytest.raises(ValueError, match="mixer must be one of"):
        DecoderConfig(mixer="aft_conv")
    with pytest.raises(ValueError, match="grid must hold length = 24"):
        replace(TINY, grid=(5, 5))
    with pytest.raises(ValueError, match="at most 24 long, got 25"):
        decoder("attention")(torch.zeros(1, 25, dtype=torch.long))
