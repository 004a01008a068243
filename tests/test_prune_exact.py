"""Pruning number by number: what criteria score, which offsets masks take, what is cut, tuned and dropped."""

import re

import pytest
import torch
import torch.nn.functional as F
from pruning_cases import trained_like, two_batches
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from aft_lens import AFTConv
from aft_lens.data import ResidentBatches, load_data
from aft_lens.ops.forms.indexed_mean import GATHERS_A_PRODUCT
from analyses.pruning import compact_model, masked_model, prune_to_indexing, score, select
from analyses.pruning.cutting import finetune as tuning
from analyses.pruning.cutting import heads
from analyses.pruning.cutting.compact import (
    conv_mixers,
    dense_biases,
    dense_weights,
    full_masks,
    index_bias,
    layer_forms,
)
from analyses.pruning.measuring.cost import predict
from analyses.pruning.measuring.rung import kept_masks


@pytest.fixture
def batches():
    return two_batches()


def test_hard_scores_are_eq_10s_shares():
    free = trained_like()
    for found, w in zip(score(free, "hard"), dense_biases(free), strict=True):
        torch.testing.assert_close(found.flatten(1), w.flatten(1).softmax(1))
    single = trained_like("single")
    for found, mixer in zip(score(single, "hard"), conv_mixers(single), strict=True):
        share = mixer.position_bias.inner().detach().flatten(1).softmax(1)
        assert ((found != 0).flatten(1).sum(1) == 1).all()
        torch.testing.assert_close(found.flatten(1).amax(1), share.amax(1))
    indexed = compact_model(free, select(score(free, "magnitude"), 3))
    for found, w in zip(score(indexed, "hard"), dense_biases(indexed), strict=True):
        torch.testing.assert_close(found, w.flatten(1).softmax(1).view(w.shape) * (w != 0))


def test_random_scores_are_their_seeds():
    model = trained_like()
    first, again, other = (torch.cat(score(model, "random", seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first, torch.cat(score(model, "random")))
    assert not torch.equal(first, other)
    assert 0.5 <= float(first.min()) < 0.6
    assert 1.4 < float(first.max()) <= 1.5


def test_centre_scores_fall_with_the_distance():
    for scores in score(trained_like(), "centre"):
        for down in range(5):
            for right in range(5):
                distance = ((down - 2) ** 2 + (right - 2) ** 2) ** 0.5
                torch.testing.assert_close(scores[:, down, right], torch.full((4,), 1 / (1 + distance)))


@pytest.mark.parametrize("sizes", [(12, 12), (20, 4)])
def test_taylor_scores_are_the_first_order_change_of_the_mean_loss(batches, sizes):
    model = trained_like()
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    dense = masked_model(model, full_masks(model))
    weights = dense_weights(dense)
    gradients = torch.autograd.grad(F.cross_entropy(dense(images), labels), weights)
    dealt = list(zip(images.split(sizes), labels.split(sizes), strict=True))
    for found, w, gradient in zip(score(model, "taylor", dealt), dense_biases(model), gradients, strict=True):
        torch.testing.assert_close(found, ((1 - torch.exp(-w)) * gradient).abs(), rtol=1e-4, atol=1e-8)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_equal_scores_go_to_the_earlier_place():
    equal = torch.ones(2, 7, 7)
    first = torch.arange(49).view(1, 7, 7) < 20
    (found,) = select([equal], 20)
    assert torch.equal(found, first.expand(2, 7, 7))
    assert index_bias(torch.full((1, 7, 7), 0.5), first).offset[0].tolist() == [
        [place // 7 - 3, place % 7 - 3] for place in range(20)
    ]


@pytest.mark.parametrize(
    ("keep", "budget", "words"),
    [
        (-0.5, "layer", 'keep must be 0 or more with budget="layer", got -0.5'),
        (-1, "head", 'keep must be a whole number from 0 with budget="head", got -1'),
    ],
)
def test_a_budget_says_what_it_takes(keep, budget, words):
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        select([torch.ones(1, 3, 3)], keep, budget)


class Foreign(nn.Module):
    """A module of somebody else's, with an AFT-conv layer or without."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(AFTConv(8, 2, window_size=3) for _ in range(layers))


@pytest.mark.parametrize(
    ("layers", "more"),
    [(0, ""), (2, "; its 2 AFT-conv layers are read by aft_lens.bias_maps and changed by edit")],
)
def test_what_is_no_model_of_ours_is_told_what_else_it_can_do(layers, more):
    words = (
        "pruning needs a model of aft_lens.load or aft_lens.create, whose config says how it is cut, got "
        f"test_prune_exact.Foreign{more}"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        conv_mixers(Foreign(layers))


def test_a_model_of_two_kinds_of_mixers_is_refused():
    model = trained_like()
    model.blocks[1].mixer = nn.Identity()
    words = (
        "model must have the mixer aft_conv to be pruned to indexing, got 'aft_conv'; give one that has, as "
        "aft_lens.load('digits-conv').model (`aft-lens list` shows them)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
        conv_mixers(model)


def test_a_masked_model_is_a_free_one_whatever_it_was(batches):
    indexed = prune_to_indexing(trained_like("reparameterized"), batches, 3, seconds=0.0).model
    dense = masked_model(indexed, full_masks(indexed))
    assert (dense.config.position_bias, dense.config.keep) == ("free", ())
    torch.testing.assert_close(dense(batches[0][0]), indexed(batches[0][0]), rtol=0, atol=1e-5)
    with torch.no_grad():
        dense_weights(dense)[0][0, 0, 0] = 1.0
    assert full_masks(dense)[0][0, 0, 0]


def test_spare_slots_stand_at_the_target_with_nothing():
    w = torch.zeros(2, 3, 5)
    w[0, 0, 4], w[0, 2, 1], w[1, 1, 0] = -3.0, 0.5, 2.0
    found = index_bias(w, w != 0)
    assert found.keep == 2
    assert found.offset.tolist() == [[[-1, 2], [1, -1]], [[0, -2], [0, 0]]]
    assert found.weight.tolist() == [[-3.0, 0.5], [2.0, 0.0]]
    assert found.kept.tolist() == [[True, True], [True, False]]
    assert index_bias(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3, dtype=torch.bool)).keep == 0


def test_forms_are_named_as_they_run():
    model = trained_like()
    scores = score(model, "magnitude")
    assert layer_forms(model) == ["convolution"] * 2
    assert layer_forms(compact_model(model, select(scores, 1))) == ["pure indexing"] * 2
    assert layer_forms(compact_model(model, select(scores, 2))) == ["k-offset gather"] * 2
    assert layer_forms(compact_model(model, select(scores, 0))) == ["pooling only"] * 2
    most = 64 // GATHERS_A_PRODUCT
    assert layer_forms(compact_model(model, select(scores, most))) == ["k-offset gather"] * 2
    assert layer_forms(compact_model(model, select(scores, most + 1))) == ["matrix product"] * 2


def test_fine_tuning_is_adamw_under_a_cosine_that_spares_biases_and_vectors(batches, monkeypatch):
    model = compact_model(trained_like(), select(score(trained_like(), "magnitude"), 3))
    data = TensorDataset(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    made, seen = {}, {}

    def optimizer(groups, lr):
        made["groups"], made["lr"] = groups, lr
        return torch.optim.SGD(groups, lr, weight_decay=7.0)

    def loader(*given, **named):
        made["loader"] = DataLoader(*given, **named)
        return made["loader"]

    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    monkeypatch.setattr(tuning.torch.optim, "AdamW", optimizer)
    monkeypatch.setattr(tuning, "DataLoader", loader)
    monkeypatch.setattr(tuning.torch.optim.lr_scheduler, "CosineAnnealingLR",
                        lambda optimizer, steps: made.update(steps=steps) or cosine(optimizer, steps))  # fmt: skip
    monkeypatch.setattr(tuning, "progress", lambda items, words: seen.update(words=words) or items)
    tuned = tuning.finetune(model, data, epochs=3)
    assert tuned is not model
    assert not tuned.training
    assert (made["lr"], made["steps"], seen["words"]) == (5e-4, 3, "fine-tune")
    assert (made["loader"].batch_size, made["loader"].generator.initial_seed()) == (64, 0)
    assert isinstance(made["loader"].sampler, torch.utils.data.RandomSampler)
    names = {id(parameter): name for name, parameter in tuned.named_parameters()}
    decayed, spared = ({names[id(p)] for p in group["params"]} for group in made["groups"])
    assert [group["weight_decay"] for group in made["groups"]] == [0.05, 0.0]
    assert decayed | spared == set(names.values())
    assert (
        decayed
        == {name for name, p in tuned.named_parameters() if p.ndim > 1 and "position_bias" not in name}
        > {"head.weight", "pos_embed"} & set(names.values())
    )
    assert any("position_bias" in name for name in spared)
    tuning.finetune(model, data, epochs=3, batch_size=10)
    assert made["steps"] == 9
    tuning.finetune(model, data, epochs=1)
    assert made["steps"] == 1


def test_no_epoch_leaves_a_copy_as_it_is_and_fewer_are_refused():
    model = trained_like().train()
    same = tuning.finetune(model, TensorDataset(), epochs=0)
    assert same is not model
    assert not same.training
    assert model.training
    with pytest.raises(ValueError, match=r"^epochs must be 0 or more, got -1$"):
        tuning.finetune(model, TensorDataset(), epochs=-1)


def test_one_epoch_trains_and_batches_come_as_they_are():
    model, data = trained_like(), load_data("digits")
    before = model.head.weight.clone()
    tuned = tuning.finetune(model, ResidentBatches(data, "train", 200), epochs=1)
    assert not torch.equal(tuned.head.weight, before)
    assert torch.equal(model.head.weight, before)


COSTS = {(0, 0): 0.3, (0, 1): -0.2, (0, 2): 0.1, (0, 3): 0.9}
"""Loss and hundredths of accuracy that each of four heads is made to cost."""


@pytest.fixture
def four_heads(monkeypatch):
    """A model whose first layer's heads cost what `COSTS` says, alone and together."""
    model = trained_like()

    def measured(model, masks, batches):
        gone = [cost for (layer, head), cost in COSTS.items() if not masks[layer][head].any()]
        return 1.0 + sum(gone), 0.8 - sum(max(cost, 0.0) for cost in gone) / 100

    monkeypatch.setattr(heads, "_measure", measured)
    masks = kept_masks(model)
    masks[1][:] = False
    return model, masks


@pytest.mark.parametrize(("tolerance", "count"), [(0.0, 1), (0.001, 2), (0.0039, 2), (0.004, 3), (0.5, 4)])
def test_heads_go_from_the_cheapest_while_the_tolerance_holds(four_heads, tolerance, count):
    model, masks = four_heads
    found = heads.droppable_heads(model, [], tolerance=tolerance, masks=masks)
    order = [(0, 1), (0, 2), (0, 0), (0, 3)]
    assert found.order == order
    assert found.dropped == order[:count]
    assert found.loss_change[0].tolist() == pytest.approx([0.3, -0.2, 0.1, 0.9])
    assert found.loss_change[1].tolist() == [0.0] * 4
    expected = [0.8, 0.8, 0.799, 0.796, 0.787]
    assert found.accuracy == pytest.approx(expected[: min(count + 2, 5)])
    assert [bool(mask.any()) for mask in found.masks[0]] == [(0, head) not in order[:count] for head in range(4)]


def test_where_every_head_costs_something_none_goes(four_heads, monkeypatch):
    monkeypatch.setitem(COSTS, (0, 1), 0.2)
    model, masks = four_heads
    found = heads.droppable_heads(model, [], masks=masks)
    assert (found.dropped, found.order[0]) == ([], (0, 2))
    assert found.accuracy == pytest.approx([0.8, 0.799])
    assert all(torch.equal(mask, before) for mask, before in zip(found.masks, masks, strict=True))


def test_without_masks_every_offset_is_there_and_no_accuracy_is_given_up(four_heads):
    model, masks = four_heads
    found = heads.droppable_heads(model, [])
    assert len(found.order) == 8
    assert found.dropped == heads.droppable_heads(model, [], tolerance=0.0).dropped
    assert len(found.dropped) == 5, "the head that costs less than nothing, and the four that cost nothing"
    assert all(mask.all() for mask in kept_masks(model))
    assert not masks[1].any()


def test_what_dropping_costs_is_cross_entropy_and_accuracy(batches):
    model = trained_like()
    masks = select(score(model, "magnitude"), 2)
    logits, labels = predict(masked_model(model, masks), batches)
    loss, accuracy = heads._measure(model, masks, batches)
    assert loss == pytest.approx(float(F.cross_entropy(logits, labels)))
    right = [int(row.argmax()) == int(label) for row, label in zip(logits, labels, strict=True)]
    assert 0 < sum(right) < len(right)
    assert accuracy == pytest.approx(sum(right) / len(right))
