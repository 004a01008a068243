"""Offsets across seeds, droppable heads, composed and gradient fields."""

import numpy as np
import pytest
import torch
from pruning_cases import trained_like, two_batches

from analyses.pruning import compact_model, score, select
from analyses.pruning.cutting.compact import conv_mixers, dense_biases
from analyses.pruning.cutting.heads import droppable_heads
from analyses.pruning.evidence.agreement import agreement, match_heads
from analyses.pruning.evidence.receptive_field import composed_field, gradient_field, receptive_field


@pytest.fixture
def batches():
    return two_batches()


def masks(seed, keep=2, layers=2, heads=4, side=5):
    generator = torch.Generator().manual_seed(seed)
    return select([torch.rand(heads, side, side, generator=generator) for _ in range(layers)], keep)


def test_matching_undoes_a_shuffle_of_heads():
    first = masks(0)[0]
    order = torch.tensor([2, 0, 3, 1])
    found, overlap = match_heads(first, first[order])
    assert order[torch.from_numpy(found)].tolist() == [0, 1, 2, 3]
    assert (overlap == 1).all()


def test_agreement_tells_structure_from_noise():
    base = masks(0)
    shuffled = [mask[torch.randperm(4, generator=torch.Generator().manual_seed(i))] for i, mask in enumerate(base)]
    same = agreement([base, shuffled, base], draws=60)
    assert same.overlap == 1
    assert same.p_value == pytest.approx(1 / 61)
    noise = agreement([masks(i) for i in range(1, 4)], draws=60)
    assert noise.null_interval[0] - 0.1 <= noise.overlap <= noise.null_interval[1] + 0.1
    assert noise.p_value > 0.02


def test_rings_do_not_count_nearness_as_structure():
    near = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        mask = torch.zeros(8, 5, 5, dtype=torch.bool)
        ring = torch.tensor([[1, 2], [2, 1], [2, 3], [3, 2]])
        for head in range(8):
            y, x = ring[torch.randint(0, 4, (), generator=generator)]
            mask[head, y, x] = True
        near.append([mask])
    assert agreement(near, null="places", draws=100).p_value < 0.05
    assert agreement(near, null="rings", draws=100).p_value > 0.05
    with pytest.raises(ValueError, match="null must be"):
        agreement(near, null="luck")
    with pytest.raises(ValueError, match="at least 2"):
        agreement(near[:1])
    with pytest.raises(ValueError, match="same layers"):
        agreement([near[0], near[1] + near[2]])


def test_agreement_saves(tmp_path):
    found = agreement([masks(0), masks(1)], draws=10)
    assert all(path.stat().st_size for path in found.save(tmp_path))


def test_composed_field_is_the_exact_sum_of_offsets():
    field = composed_field([[[[1, 0]], [[0, 2]]], [[[-1, 1]], []]], (4, 4))
    expected = {(0, 0): 0.25, (1, 0): 0.125, (0, 2): 0.125, (-1, 1): 0.125, (0, 1): 0.0625, (-1, 3): 0.0625}
    for (y, x), share in expected.items():
        assert field[3 + y, 3 + x] == share
    assert field.sum() == sum(expected.values())


def test_gradient_field_sees_only_what_the_offsets_reach(batches, tmp_path):
    model = trained_like()
    cut = [torch.zeros_like(w, dtype=torch.bool) for w in dense_biases(model)]
    for mask in cut:
        mask[:, 1, 2] = True
    compact = compact_model(model, cut)
    with torch.no_grad():
        for mixer in conv_mixers(compact):
            mixer.position_bias.weight.fill_(40.0)
            torch.nn.init.zeros_(mixer.key.weight)
            torch.nn.init.zeros_(mixer.key.bias)
    gradient, seen = gradient_field(compact, batches[:1], targets=64)
    assert seen[7, 7] == 64 * 12
    assert seen[0, 0] == 12
    reached = composed_field([[[[-1, 0]]] * 4] * 2, (8, 8)) > 0
    inside, outside = gradient[reached].mean(), gradient[~reached & (seen > 0)].mean()
    assert np.argwhere(reached).tolist() == [[5, 7], [6, 7], [7, 7]]
    assert inside > 20 * outside
    field = receptive_field(compact, batches[:1], targets=64)
    assert field.reach == (2, 0)
    assert field.inside_over_outside > 20
    assert all(path.stat().st_size for path in field.save(tmp_path))


def test_droppable_heads_are_those_that_do_nothing(batches):
    model = trained_like("reparameterized")
    biases = [mixer.position_bias for mixer in conv_mixers(model)]
    with torch.no_grad():
        for bias, head in zip(biases, (1, 3), strict=True):
            bias.gamma[head] = 1e-7
            bias.beta[head] = 1e-7
    cut = select(score(model, "magnitude"), 2)
    found = droppable_heads(model, batches, tolerance=0.0, masks=cut)
    assert {(0, 1), (1, 3)} <= set(found.dropped)
    assert not found.masks[0][1].any()
    assert abs(found.loss_change[0, 1]) < 1e-5
    assert found.accuracy[len(found.dropped)] >= found.accuracy[0]
    assert len(droppable_heads(model, batches, tolerance=1.0, masks=cut).dropped) == 8
    with pytest.raises(ValueError, match="tolerance"):
        droppable_heads(model, batches, tolerance=-1)
