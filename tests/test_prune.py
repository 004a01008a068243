"""Pruning to indexing: masks, compact models, the measured ladder."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from pruning_cases import trained_like, two_batches
from torch.utils.data import TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from aft_lens.checkpoint import load_checkpoint, save_checkpoint
from aft_lens.models import VisionModel, create_model
from aft_lens.ops import aft_indexed, reference
from aft_lens.ops.inspection import indexed_form
from analyses.pruning import (
    BUDGETS,
    CRITERIA,
    compact_model,
    dropped_heads,
    masked_model,
    measure_masks,
    prune_to_indexing,
    score,
    select,
)
from analyses.pruning.cutting.compact import conv_mixers, dense_biases, layer_forms
from analyses.pruning.measuring.cost import Latency, operations, predict, unsure
from analyses.pruning.measuring.ladder import LOGITS
from analyses.pruning.measuring.rung import AGREEMENT, check_agreement, masked_twin


@pytest.fixture
def batches():
    return two_batches()


@pytest.mark.parametrize("kind", ["free", "reparameterized", "single"])
@pytest.mark.parametrize("keep", [0, 1, 3])
def test_compact_equals_masked_and_loads_alone(kind, keep, batches, tmp_path):
    model = trained_like(kind)
    ladder = prune_to_indexing(model, batches, keep, seconds=0.0)
    assert [row.name for row in ladder.rows] == ["parent", "masked", "indexed"]
    assert ladder.max_logit_difference <= AGREEMENT
    width = min(keep, 1) if kind == "single" else keep
    assert ladder.model.config.keep == (width, width)
    assert ladder.rows[2].parameters < ladder.rows[0].parameters
    path = save_checkpoint(tmp_path / "pruned", ladder.model, data={}, recipe={}, seed=0, metrics=[])
    again = load_checkpoint(path).model
    image = batches[0][0]
    assert torch.equal(again(image), ladder.model(image))
    assert (path / "model.safetensors").stat().st_size == ladder.rows[2].bytes


def test_agreement_grows_with_logits_beyond_ten(batches):
    model = trained_like()
    with torch.no_grad():
        model.head.bias.fill_(1000.0)
    near, far = copy.deepcopy(model), copy.deepcopy(model)
    with torch.no_grad():
        near.head.bias += 5e-4
        far.head.bias += 5e-3
    assert check_agreement(model, near, batches) == pytest.approx(5e-4, rel=0.2)
    with pytest.raises(ValueError, match=r"must agree to 0\.001, they differ by 0\.005"):
        check_agreement(model, far, batches)
    with torch.no_grad():
        far.head.bias[0] = torch.inf
    for pair in ((model, far), (far, model)):
        with pytest.raises(ValueError, match="they differ by inf"):
            check_agreement(*pair, batches)
    with torch.no_grad():
        model.head.bias -= 1000.0
        near.head.bias -= 1000.0
    with pytest.raises(ValueError, match="must agree to 1e-05"):
        check_agreement(model, near, batches)


def test_an_indexed_parent_prunes_further(batches):
    parent = prune_to_indexing(trained_like(), batches, 4, seconds=0.0).model
    ladder = prune_to_indexing(parent, batches, 2, seconds=0.0)
    direct = prune_to_indexing(trained_like(), batches, 2, seconds=0.0)
    assert ladder.offsets() == direct.offsets()
    assert torch.equal(ladder.model(batches[0][0]), direct.model(batches[0][0]))
    assert ladder.rows[0].keep == 4


def test_single_position_at_one_offset_changes_nothing(batches):
    model = trained_like("single")
    ladder = prune_to_indexing(model, batches, 1, criterion="hard", seconds=0.0)
    torch.testing.assert_close(ladder.model(batches[0][0]), model(batches[0][0]), rtol=0, atol=1e-5)
    assert ladder.rows[2].difference == 0


@pytest.mark.parametrize("criterion", CRITERIA.names())
def test_every_criterion_scores_every_offset_and_budgets_hold(criterion, batches):
    model = trained_like()
    scores = score(model, criterion, batches)
    assert [s.shape for s in scores] == [w.shape for w in dense_biases(model)]
    assert all(s.isfinite().all() and (s != 0).all() for s in scores)
    for budget in BUDGETS:
        masks = select(scores, 2, budget)
        assert sum(int(mask.sum()) for mask in masks) == 2 * 4 * 2
        if budget == "head":
            assert all((mask.flatten(1).sum(1) == 2).all() for mask in masks)
        if budget == "layer":
            assert all(mask.sum() == 8 for mask in masks)


def test_exact_score_is_the_loss_change_of_the_masked_model(batches):
    model = trained_like()
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    scores = score(model, "exact", batches)
    masks = [torch.ones_like(w, dtype=torch.bool) for w in dense_biases(model)]
    masks[1][2, 3, 1] = False
    loss = torch.nn.functional.cross_entropy
    change = loss(masked_model(model, masks)(images), labels) - loss(model(images), labels)
    torch.testing.assert_close(scores[1][2, 3, 1], change, rtol=1e-2, atol=1e-6)
    taylor = score(model, "taylor", batches)
    flat, first = torch.cat([s.flatten() for s in scores]).abs(), torch.cat([s.flatten() for s in taylor])
    assert torch.corrcoef(torch.stack([flat, first]))[0, 1] > 0.9


def test_activation_score_is_the_mean_key_mass_times_the_bias():
    model = trained_like()
    images = torch.randn(3, 1, 8, 8)
    scores = score(model, "activation", [(images, torch.zeros(3, dtype=torch.long))])
    found = {}
    conv_mixers(model)[0].hook_key.register_forward_hook(lambda _m, _i, key: found.update(key=key))
    model(images)
    share = found["key"].flatten(2).softmax(-1).view(3, 4, 8, 8)
    dy, dx = 2, -1
    mass = sum(
        share[:, 1, y + dy, x + dx].sum() for y in range(8) for x in range(8) if 0 <= y + dy < 8 and 0 <= x + dx < 8
    )
    expected = mass / 64 * torch.expm1(dense_biases(model)[0][1, dy + 2, dx + 2]).abs()
    torch.testing.assert_close(scores[0][1, dy + 2, dx + 2], expected)


def test_heads_of_different_k_and_dropped_heads(batches, tmp_path):
    model = trained_like()
    masks = [torch.zeros_like(w, dtype=torch.bool) for w in dense_biases(model)]
    masks[0][0, 0, :3] = True
    masks[0][2, 4, 4] = True
    ladder = measure_masks(model, masks, batches, seconds=0.0)
    assert ladder.model.config.keep == (3, 0)
    assert ladder.rows[2].form == "k-offset gather x 1, pooling only x 1"
    assert ladder.rows[0].form == "convolution x 2"
    assert dropped_heads(masks) == [(0, 1), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3)]
    assert ladder.rows[2].dropped_heads == 6
    assert ladder.rows[2].kept_offsets == 4
    offsets = ladder.offsets()[0]
    assert sorted(offsets[0]) == [[-2, -2], [-2, -1], [-2, 0]]
    assert offsets[1:] == [[], [[2, 2]], []]
    bias = conv_mixers(ladder.model)[0].position_bias
    assert torch.equal(bias.dense((5, 5)) != 0, masks[0])
    path = save_checkpoint(tmp_path / "p", ladder.model, data={}, recipe={}, seed=0, metrics=[])
    assert torch.equal(load_checkpoint(path).model(batches[0][0]), ladder.model(batches[0][0]))


def test_spare_slots_never_train(batches):
    model = trained_like()
    masks = select(score(model, "magnitude"), 1.5, "global")
    compact = compact_model(model, masks).train()
    optimizer = torch.optim.AdamW(compact.parameters(), lr=1e-2)
    before = [mixer.position_bias().detach().clone() for mixer in conv_mixers(compact)]
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(compact(batches[0][0]), batches[0][1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for mixer, old in zip(conv_mixers(compact), before, strict=True):
        bias = mixer.position_bias
        assert (~bias.kept).any()
        assert torch.equal(bias()[~bias.kept], torch.zeros(int((~bias.kept).sum())))
        assert (bias()[bias.kept] != old[bias.kept]).all()


def test_refusals_name_the_argument(batches):
    with pytest.raises(ValueError, match="mixer aft_conv"):
        prune_to_indexing(create_model("vit_digits", depth=1), batches)
    with pytest.raises(ValueError, match="outside"):
        prune_to_indexing(trained_like(outside="none"), batches)
    with pytest.raises(ValueError, match="criterion must be"):
        prune_to_indexing(trained_like(), batches, criterion="luck")
    with pytest.raises(ValueError, match="budget must be"):
        select([torch.ones(1, 3, 3)], 1, "town")
    with pytest.raises(ValueError, match=r"keep must be a whole number.*1\.5"):
        select([torch.ones(1, 3, 3)], 1.5)
    with pytest.raises(ValueError, match="calibration"):
        score(trained_like(), "exact")
    with pytest.raises(ValueError, match="masks must have"):
        compact_model(trained_like(), [torch.ones(1, 3, 3, dtype=torch.bool)])
    with pytest.raises(ValueError, match="at least one"):
        prune_to_indexing(trained_like(), [])
    with pytest.raises(ValueError, match=r"keep must have a count.*2 blocks"):
        VisionModel(trained_like().config.__class__(depth=2, keep=(1,)))


def test_a_mask_that_should_change_something_and_does_not_is_an_error(batches):
    model = trained_like()
    for mixer in conv_mixers(model):
        torch.nn.init.zeros_(mixer.proj.weight)
    with pytest.raises(ValueError, match="no logit changed"):
        prune_to_indexing(model, batches, 1, seconds=0.0)


def test_ladder_saves_itself(batches, tmp_path):
    ladder = prune_to_indexing(trained_like(), batches, 1, seconds=0.0)
    paths = ladder.save(tmp_path)
    assert {path.suffix for path in paths} == {".json", ".csv", ".png", ".svg", ".html"}
    record = json.loads(paths[0].read_text())
    assert record["max_abs_logit_difference"] <= AGREEMENT
    assert [row["name"] for row in record["rungs"]] == ["parent", "masked", "indexed"]


def test_a_ladder_says_what_cutting_changed_apart_from_parity(batches):
    ladder = prune_to_indexing(trained_like(), batches, 1, seconds=0.0)
    table = {row["rung"]: row for row in ladder.table().mappings()}
    parent, masked = LOGITS
    assert [table["parent"][name] for name in LOGITS] == ["–", "–"]
    assert table["masked"][masked] == "–"
    logits = [predict(model, batches)[0] for model in (trained_like(), masked_twin(ladder.model))]
    change = float((logits[0] - logits[1]).abs().max())
    assert change > 100 * AGREEMENT
    assert ladder.rows[1].logit_change == pytest.approx(change, rel=1e-3)
    assert table["masked"][parent] == table["indexed"][parent] == f"{change:.1e}"
    assert float(table["indexed"][masked]) <= AGREEMENT


def test_latency_is_the_median_and_says_when_it_cannot_tell():
    parent = Latency("cpu", 64, 441.0, 577.0, 22.0, 9, low_ms=20.0, high_ms=26.0)
    near, far = replace(parent, median_ms=19.0), replace(parent, median_ms=12.0)
    assert str(parent) == "22.00 [20.00, 26.00]"
    words = unsure(("parent", "indexed"), parent, near)
    assert "parent and indexed: the times' spread (quartiles 6.00 ms apart) exceeds their difference (3.00 ms)" in words
    assert unsure(("parent", "indexed"), parent, far) == ""
    old = Latency(**{"device": "cpu", "batch": 64, "mean_ms": 5.0, "sd_ms": 1.0, "median_ms": 4.0, "repeats": 5})
    assert str(old) == "4.00", "records from before the quartiles stay readable"


@pytest.mark.parametrize("keep", [0, 1, 3, 20])
def test_indexed_without_gradient_equals_with_and_the_reference(keep):
    torch.manual_seed(keep)
    query, value, key = torch.randn(5, 3, 2, 5, 7), torch.randn(5, 3, 2, 5, 7), 4 * torch.randn(5, 3, 5, 7)
    places = torch.stack([torch.randperm(45)[:keep] for _ in range(3)])
    offset = torch.stack([places // 9 - 2, places % 9 - 4], dim=-1)
    bias = 2 * torch.randn(3, keep).clamp(min=-1.4)
    expected = reference.aft_indexed(query, key, value, bias, offset).float()
    with torch.inference_mode():
        torch.testing.assert_close(aft_indexed(query, key, value, bias, offset), expected)
    found = aft_indexed(query, key, value, bias.requires_grad_(), offset)
    torch.testing.assert_close(found, expected)
    assert indexed_form(bias, 35) == ("pool" if keep == 0 else "matmul" if keep == 20 else "gather")


def test_finetuning_and_iterative_pruning_train_the_kept_offsets_alone(batches):
    model = trained_like()
    train = TensorDataset(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    state = torch.get_rng_state()
    ladder = prune_to_indexing(model, batches, 1, train=train, finetune=20, seconds=0.0)
    assert torch.equal(state, torch.get_rng_state())
    assert [row.name for row in ladder.rows] == ["parent", "masked", "indexed", "fine-tuned"]
    assert ladder.rows[3].accuracy > ladder.rows[2].accuracy
    assert ladder.rows[3].finetune_epochs == 20
    assert ladder.offsets() == prune_to_indexing(model, batches, 1, seconds=0.0).offsets()
    gradual = prune_to_indexing(model, batches, 1, train=train, finetune=1, steps=(9, 3), seconds=0.0)
    assert gradual.model.config.keep == (1, 1)
    assert gradual.rows[0].accuracy == ladder.rows[0].accuracy
    with pytest.raises(ValueError, match="train must hold"):
        prune_to_indexing(model, batches, 1, finetune=1)
    with pytest.raises(ValueError, match="finetune must be"):
        prune_to_indexing(model, batches, 1, train=train, steps=(3,))


def test_form_names_what_ran(batches):
    model = trained_like()
    with torch.no_grad():
        conv_mixers(model)[0].position_bias.weight[0, 0, 0] = -60.0
    masks = [torch.ones_like(w, dtype=torch.bool) for w in dense_biases(model)]
    assert layer_forms(compact_model(model, masks)) == ["row by row", "matrix product"]
    assert measure_masks(model, masks, batches, batch_sizes=()).max_logit_difference <= AGREEMENT


def test_whole_heads_go_while_accuracy_holds(batches):
    ladder = prune_to_indexing(trained_like(), batches, 1, drop_heads=1.0, batch_sizes=())
    assert ladder.rows[-1].dropped_heads == 8
    assert ladder.rows[-1].form == "pooling only x 2"
    strict = prune_to_indexing(trained_like(), batches, 1, drop_heads=0.0, batch_sizes=())
    assert strict.rows[-1].accuracy >= prune_to_indexing(trained_like(), batches, 1, batch_sizes=()).rows[-1].accuracy


def test_zero_biases_are_kept_by_no_criterion(batches):
    model = trained_like("single")
    for criterion in CRITERIA:
        assert all((s != 0).flatten(1).sum(1).max() <= 1 for s in score(model, criterion, batches))


def test_counting_operations_touches_no_other_forward_pass():
    model, hooks = trained_like("free"), []
    image = torch.zeros(1, model.config.in_chans, model.config.img_size, model.config.img_size)
    with FlopCounterMode(display=False) as expected, torch.no_grad():
        model(image)
    seen = torch.nn.modules.module._global_forward_pre_hooks
    model.blocks[0].register_forward_pre_hook(lambda *_: hooks.append(len(seen)))
    assert operations(model, image) == expected.get_total_flops() > 0
    assert hooks == [0]
