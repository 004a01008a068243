"""Sequences: splits, windows that count each symbol once, augmentation, and bits against closed forms."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from aft_lens.data import load_data
from aft_lens.data.sequences import Pixels, SequenceBatches, Stream, load_sequences
from aft_lens.data.sequences import corpora as texts
from aft_lens.data.sequences.batches import changed
from aft_lens.errors import InputError
from aft_lens.models import Decoder, DecoderConfig
from aft_lens.training import measure_bits
from aft_lens.training.bits import change


def markov(order, vocab, count, seed=0):
    """A text of a random Markov chain, the log-probabilities of each symbol given the `order` before it, and its bits.

    Symbols before the text's first count as 0.
    """
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.full(vocab, 0.5), size=(vocab,) * order)
    text = [0] * order
    for _ in range(count):
        text.append(rng.choice(vocab, p=table[tuple(text[-order:])]))
    bits = sum(-math.log2(table[tuple(text[i - order : i])][text[i]]) for i in range(order, len(text)))
    return torch.tensor(text[order:], dtype=torch.uint8), torch.from_numpy(table).log(), bits


def chain(log, order, start):
    """A model that knows the chain: logits of the next symbol from the last `order` of its window, 0 before it."""

    def model(symbols):
        known = torch.where(symbols == start, 0, symbols)
        padded = torch.nn.functional.pad(known, (order - 1, 0))
        return log[tuple(padded.unfold(1, order, 1).unbind(-1))]

    return model


@pytest.mark.parametrize("count", [16, 17, 100, 333])
@pytest.mark.parametrize("context", [1, 4, 16])
def test_bits_of_a_markov_chain_are_its_closed_form(count, context):
    text, log, bits = markov(1, 5, count)
    found = measure_bits(chain(log, 1, 256), Stream(text, 16, 256), context=context)
    assert found.symbols == count
    assert found.total.sum() == pytest.approx(bits, rel=1e-12)
    assert found.mean == pytest.approx(bits / count, rel=1e-12)


def test_a_longer_memory_needs_the_context_that_is_stated():
    """Of a chain of order 3 in windows of 16: with 3 symbols before each the bits are the closed form, with 1 not."""
    text, log, bits = markov(3, 4, 500)
    stream = Stream(text, 16, 256)
    assert measure_bits(chain(log, 3, 256), stream, context=3).total.sum() == pytest.approx(bits, rel=1e-12)
    assert measure_bits(chain(log, 3, 256), stream, context=1).total.sum() > 1.01 * bits
    assert "from the 3 to 16 before it" in stream.context(3)


def test_a_decoder_without_blocks_gives_the_cross_entropy_of_its_head():
    model = Decoder(DecoderConfig(vocab_size=5, length=16, embed_dim=8, depth=1, num_heads=1, bias_rank=2))
    model.blocks = torch.nn.ModuleList()
    share = torch.tensor([0.5, 0.25, 0.125, 0.0625, 0.0625])
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(share.log())
    images = torch.randint(0, 5, (40, 16), dtype=torch.uint8)
    found = measure_bits(model, Pixels(images, 5))
    expected = torch.tensor([1.0, 2.0, 3.0, 4.0, 4.0])[images.long()]
    np.testing.assert_allclose(found.total, expected.sum(1).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.by_place, expected.mean(0).numpy(), rtol=1e-6)
    np.testing.assert_allclose(found.channels((4, 2, 2)), expected.mean(0).reshape(8, 2).mean(0).numpy(), rtol=1e-6)
    spread = 1.959964 * float(expected.mean(1).double().std()) / math.sqrt(40)
    assert found.interval == pytest.approx((found.mean - spread, found.mean + spread), rel=1e-5)


def test_changes_are_paired_by_window():
    text, log, _ = markov(1, 5, 200)
    stream, model = Stream(text, 16, 256), chain(log, 1, 256)
    before, worse = measure_bits(model, stream), measure_bits(lambda symbols: 0.2 * model(symbols), stream)
    assert change(before, before).interval == (0, 0)
    found = change(before, worse)
    assert found.mean == pytest.approx(worse.mean - before.mean)
    assert found.interval[0] > 0
    with pytest.raises(ValueError, match="same windows"):
        change(before, measure_bits(model, stream, limit=3))


def test_every_symbol_of_a_text_is_counted_once_and_predicted_from_what_is_before_it():
    text = torch.arange(103, dtype=torch.uint8)
    for context in (1, 5, 16):
        seen = []
        for window in Stream(text, 16, 256).windows(3, context):
            assert window.symbols.shape[1] == 17
            seen += window.symbols[:, 1 + window.counted :].flatten().tolist()
            first = window.symbols[:, 0]
            assert bool(((first == 256) | (first + 1 == window.symbols[:, 1])).all())
        assert sorted(seen) == list(range(103))
    with pytest.raises(ValueError, match="context must be from 1 to the length 16, got 17"):
        list(Stream(text, 16, 256).windows(3, 17))
    with pytest.raises(ValueError, match=r"smaller model\.length"):
        Stream(text[:9], 16, 256)


def test_images_are_spelled_row_by_row_channels_innermost():
    data, images = load_sequences("digits"), load_data("digits")
    assert (data.length, data.grid, data.vocab_size) == (64, (8, 8, 1), 256)
    assert torch.equal(data.test.symbols.reshape(-1, 1, 8, 8), images.test.images)
    window = next(data.test.windows(7))
    assert window.symbols[:, 0].eq(256).all()
    assert torch.equal(window.symbols[:, 1:], data.test.symbols[:7].long())
    with pytest.raises(ValueError, match="unknown; choose one of"):
        load_sequences("wikipedia")


def test_flips_turn_rows_and_levels_move_all_sub_pixels_alike():
    image = torch.arange(2 * 3 * 3).repeat(64, 1) + 100
    torch.manual_seed(0)
    found = changed(image, (2, 3, 3), flip=True)
    turned = image.view(-1, 2, 3, 3).flip(2).flatten(1)
    moves = torch.stack([(found - image)[:, :1], (found - turned)[:, :1]])
    right = torch.stack([(found - image == moves[0]).all(1), (found - turned == moves[1]).all(1)])
    assert bool(right.any(0).all())
    assert 10 < int(right[0].sum()) < 54
    move = torch.where(right[0], moves[0, :, 0], moves[1, :, 0])
    assert int(move.min()) >= -10
    assert int(move.max()) <= 10
    assert len(move.unique()) > 10
    dark = changed(torch.zeros(64, 4, dtype=torch.long), (2, 2, 1), flip=False)
    assert int(dark.min()) == 0
    assert int(dark.max()) <= 10


def test_batches_draw_a_new_order_for_each_pass_and_share_it_among_processes():
    data = load_sequences("digits")
    data = replace(data, train=replace(data.train, symbols=torch.arange(22, dtype=torch.uint8).repeat(64, 1).T))

    def first(seed, share=(0, 1)):
        batches = SequenceBatches(data, 4, lambda: seed, share=share)
        assert len(batches) == len(list(batches)) == 22 // share[1] // 4
        return [targets[:, 0].tolist() for _, targets in batches]

    assert first(0) == first(0) != first(1)
    both = first(0, (0, 2)) + first(0, (1, 2))
    assert len({value for batch in both for value in batch}) == 16
    inputs, targets = next(iter(SequenceBatches(data, 4, lambda: 0)))
    assert inputs[:, 0].eq(256).all()
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    with pytest.raises(ValueError, match=r"data.augment must be one of .* got 'shift'"):
        SequenceBatches(data, 4, lambda: 0, augment="shift")


def test_text_is_read_from_a_file_or_a_folder(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"b" * 60)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("é" * 20, encoding="utf-8")
    (tmp_path / ".hidden").write_bytes(b"h" * 99)
    data = load_sequences(f"text:{tmp_path}", length=5)
    assert [len(part.symbols) for part in (data.train, data.val, data.test)] == [90, 5, 5]
    assert bytes(data.train.symbols[:4].tolist()).decode() == "éé"
    assert (data.unit, data.vocab_size, data.grid) == ("character", 256, ())
    with pytest.raises(ValueError, match="augment levels is for images"):
        SequenceBatches(data, 4, lambda: 0, augment="levels")
    for name in ("text", "text:", f"text:{tmp_path}/absent"):
        with pytest.raises(FileNotFoundError, match="must be text:PATH"):
            load_sequences(name)


def test_enwik8_has_its_split(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"unpack enwik8\.zip"):
        load_sequences("enwik8", root=tmp_path)
    (tmp_path / "enwik8").write_bytes(bytes(range(200)))
    with pytest.raises(InputError, match="has 200 bytes, and Enwik8 100,000,000"):
        load_sequences("enwik8", root=tmp_path)
    monkeypatch.setattr(texts, "ENWIK8", 200)
    for name, root in (("enwik8", tmp_path), (f"enwik8:{tmp_path}/enwik8", None)):
        data = load_sequences(name, root=root, length=10)
        assert data.train.symbols.tolist() == list(range(180))
        assert data.val.symbols.tolist() == list(range(180, 190))
        assert data.test.symbols.tolist() == list(range(190, 200))
