"""Decoders that read one symbol at a time: the same logits as in parallel, and what is drawn from them."""

from dataclasses import replace

import pytest
import torch

from aft_lens.layers.mixer import MIXERS
from aft_lens.models import Decoder, DecoderConfig, Reader, Sampling, causal_mixers, generate
from analyses.bench.generation import generation_ratio
from analyses.bench.generation.measure import SHAPE

TINY = DecoderConfig(
    vocab_size=11, length=24, embed_dim=16, depth=2, num_heads=2, mlp_ratio=2.0, window_size=6, bias_rank=4
)
STEPPING = [name for name in causal_mixers() if MIXERS[name].steps]


def decoder(mixer, **changes):
    torch.manual_seed(0)
    model = Decoder(replace(TINY, mixer=mixer, **changes)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model


def test_these_mixers_read_one_symbol_at_a_time():
    assert STEPPING == ["aft_full", "aft_local", "aft_simple", "attention", "linear_attention", "synthesizer"]
    with pytest.raises(ValueError, match="performer cannot read one symbol at a time, which these can: aft_full"):
        decoder("performer").begin(1)


@pytest.mark.parametrize("mixer", STEPPING)
@pytest.mark.parametrize("bias", ["factorized", "free"])
def test_steps_equal_the_parallel_form(mixer, bias):
    model = decoder(mixer, position_bias=bias)
    symbols = torch.randint(0, 12, (3, 24))  # the start among them
    reader = Reader(model, 3)
    found = torch.stack([reader(symbols[:, place]) for place in range(24)], 1)
    with torch.no_grad():
        torch.testing.assert_close(found, model(symbols), atol=2e-5, rtol=2e-5)
    with pytest.raises(ValueError, match="reads 24 symbols"):
        reader(symbols[:, 0])


@pytest.mark.parametrize("window", [1, 5, 24, 40])
def test_the_ring_forgets_what_leaves_its_window_into_the_sums(window):
    model = decoder("aft_local", window_size=window)
    with torch.no_grad():
        for block in model.blocks:
            block.mixer.key.weight.mul_(100)  # keys far apart
    symbols = torch.randint(0, 11, (2, 24))
    reader = Reader(model, 2)
    found = torch.stack([reader(symbols[:, place]) for place in range(24)], 1)
    with torch.no_grad():
        torch.testing.assert_close(found, model(symbols), atol=1e-4, rtol=1e-4)
    assert reader.memories[0].ring.shape == (2, min(window, 24), 2, 16)


def test_drawing_follows_temperature_top_k_and_top_p():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).log_softmax(1)
    share = logits.exp()
    torch.testing.assert_close(Sampling().probabilities(logits), share)
    torch.testing.assert_close(Sampling(temperature=0.5).probabilities(logits), (2 * logits).softmax(1))
    assert Sampling(temperature=0).probabilities(logits).tolist() == [[1, 0, 0, 0]]
    torch.testing.assert_close(Sampling(top_k=2).probabilities(logits)[0, :2], share[0, :2] / share[0, :2].sum())
    assert Sampling(top_k=2).probabilities(logits)[0, 2:].tolist() == [0, 0]
    assert int((Sampling(top_p=0.65).probabilities(logits) > 0).sum()) == 2  # the first has 0.644 of all
    assert int((Sampling(top_p=0.6).probabilities(logits) > 0).sum()) == 1
    for wrong in ({"temperature": -1}, {"top_k": -1}, {"top_p": 0}):
        with pytest.raises(ValueError, match="temperature and top_k must be"):
            Sampling(**wrong)


def test_frequencies_are_the_model_s_own():
    model = decoder("aft_local")
    found = generate(model, torch.zeros(4000, 0, dtype=torch.long), 1, seed=1)
    with torch.no_grad():
        share = model(torch.tensor([[model.config.start]]))[0, 0].softmax(0)
    torch.testing.assert_close(torch.bincount(found[:, 0], minlength=11) / 4000, share, atol=0.025, rtol=0)


@pytest.mark.parametrize("mixer", STEPPING)
def test_prompts_are_kept_and_continued_as_the_parallel_form_would(mixer):
    model = decoder(mixer)
    prompt = torch.randint(0, 11, (2, 7))
    found = generate(model, prompt, 20, sampling=Sampling(temperature=0))
    assert torch.equal(found[:, :7], prompt)
    inputs = torch.cat([torch.full((2, 1), 11), found[:, :-1]], 1)
    with torch.no_grad():
        assert torch.equal(model(inputs).argmax(2)[:, 7:], found[:, 7:])


def test_text_goes_on_beyond_the_model_s_length():
    model = decoder("aft_local")
    found = generate(model, torch.zeros(1, 0, dtype=torch.long), 70, sampling=Sampling(temperature=0))
    assert found.shape == (1, 70)
    # After 24 symbols the 12 last ones and the one before them are read again, at places 0 to 12.
    inputs = found[:, 11:24]
    with torch.no_grad():
        assert int(model(inputs)[0, -1].argmax()) == int(found[0, 24])


def test_draws_depend_on_the_seed_and_wrong_prompts_are_named():
    model, empty = decoder("aft_simple"), torch.zeros(2, 0, dtype=torch.long)
    first = generate(model, empty, 12, seed=3)
    assert torch.equal(first, generate(model, empty, 12, seed=3))
    assert not torch.equal(first, generate(model, empty, 12, seed=4))
    with pytest.raises(ValueError, match="length must be above the prompt's 5"):
        generate(model, torch.zeros(1, 5, dtype=torch.long), 5)
    with pytest.raises(ValueError, match="symbols of 0 to 10"):
        generate(model, torch.full((1, 5), 11), 9)
    with pytest.raises(ValueError, match="capture needs a CUDA device"):
        Reader(model, 1, capture=True)


def test_steps_are_timed_at_a_context():
    shape = replace(SHAPE, depth=1, embed_dim=16, num_heads=2, window_size=4, bias_rank=2)
    ratio, ours, theirs = generation_ratio(batch=2, context=32, device="cpu", dtype=torch.float32, shape=shape)
    assert ratio == pytest.approx(ours.tokens_per_second / theirs.tokens_per_second)
    assert ours.state_mib == pytest.approx(4 * 2 * 16 * (2 * 4 + 3) / 2**20)  # keys and values of 4, and three sums
    assert theirs.state_mib == pytest.approx(4 * 2 * 16 * 2 * 32 / 2**20)
    assert ours.tokens_per_second == pytest.approx(2e3 / ours.milliseconds)
