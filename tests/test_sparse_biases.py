"""Rivals of Eq. 10 and controls: position biases that are 0 at most places, and what their training minimizes."""

import pytest
import torch

from aft_lens.checkpoint import load_checkpoint, save_checkpoint
from aft_lens.layers.position_bias import (
    CONV_BIASES,
    ConvBiasSpec,
    Entmax,
    HardConcrete,
    Spaced,
    TopK,
    conv_bias,
)
from aft_lens.layers.position_bias.indexed import RING
from aft_lens.models import create_model
from aft_lens.training import read_recipe
from aft_lens.training.sparsity import expected_positions

WINDOW = (5, 5)


def shaped(bias, seed=0):
    """Give Eq. 8's w some shape: at the start it is 0 everywhere."""
    torch.manual_seed(seed)
    bias.assign(torch.randn(len(bias.logits()), *WINDOW))
    return bias


@pytest.mark.parametrize("kind", CONV_BIASES)
def test_every_kind_trains_saves_and_loads(kind, tmp_path):
    torch.manual_seed(0)
    model = create_model("aft_conv_digits", depth=1, position_bias=kind, num_classes=3)
    images = torch.randn(4, 1, 8, 8)
    for parameter in model.parameters():  # away from the zeros of the start, which stop some gradients
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.train()(images).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())
    weights = model.blocks[0].get_submodule("mixer.position_bias")
    assert any(p.grad.abs().sum() > 0 for p in weights.parameters())
    save_checkpoint(tmp_path / "run", model, data={}, recipe={}, seed=0, metrics=[])
    again = load_checkpoint(tmp_path / "run").model
    assert torch.equal(model.eval()(images), again(images))


def test_top_k_computes_with_the_largest_and_trains_all():
    bias = shaped(TopK(3, WINDOW, positions=2))
    w = bias.logits()
    for mode in (bias.train(), bias.eval()):
        kept = mode() != 0
        assert kept.flatten(1).sum(1).tolist() == [2, 2, 2]
        assert torch.equal(mode()[kept], w[kept])
        assert w[kept].abs().min() >= 0
        for head in range(3):
            assert w[head][kept[head]].abs().min() >= w[head][~kept[head]].abs().max()
    target = torch.randn(3, *WINDOW)
    (bias.train()() * target).sum().backward()
    through = bias.inner.weight.grad.clone()
    bias.inner.weight.grad = None
    (bias.logits() * target).sum().backward()
    torch.testing.assert_close(through, bias.inner.weight.grad)  # as if none had been left out


def test_hard_concrete_gates_close_exactly_and_are_counted():
    bias = shaped(HardConcrete(2, WINDOW))
    bias.gate.data[0] = -9.0
    assert bias.eval()()[0].abs().max() == 0
    bias.gate.data[1] = 9.0
    torch.testing.assert_close(bias()[1], bias.logits()[1])
    closed, opened = bias.expected_positions().tolist()
    assert (closed < 0.1, opened > 24.9) == (True, True)
    bias.gate.data.zero_()
    torch.manual_seed(0)
    with torch.no_grad():
        open_share = torch.stack([(bias.train()() != 0).float().mean() for _ in range(400)]).mean()
        assert float(open_share) == pytest.approx(float(bias.expected_positions().mean() / 25), abs=0.02)


def test_entmax_is_the_package_s_and_leaves_exact_zeros():
    entmax = pytest.importorskip("entmax")
    bias = shaped(Entmax(2, WINDOW, temperature=0.5))
    w = bias.logits()
    expected = w * entmax.entmax_bisect(w.flatten(1) / 0.5, alpha=1.5, dim=1).reshape(w.shape)
    torch.testing.assert_close(bias(), expected, atol=1e-5, rtol=1e-4)
    fewer = shaped(Entmax(2, WINDOW, temperature=0.1))
    assert 0 < (fewer() != 0).sum() < (bias() != 0).sum() < 50
    with pytest.raises(ValueError, match="temperature"):
        Entmax(2, WINDOW, temperature=0.0)


def test_spacings_are_dcls_in_training_and_whole_in_evaluation():
    dcls = pytest.importorskip("DCLS.construct.modules")
    torch.manual_seed(0)
    bias = Spaced(3, WINDOW, positions=2)
    bias.spacing.data.uniform_(-1.9, 1.9)
    build = dcls.ConstructKernel2d(3, 1, 1, 2, WINDOW, "v1")
    places = bias.spacing.detach().movedim(-1, 0).flip(0).unsqueeze(2)  # theirs are (x, y)
    kernel = build(bias.weight.detach().unsqueeze(1), places, None).reshape(3, *WINDOW)
    torch.testing.assert_close(bias.train()(), kernel, atol=1e-6, rtol=1e-5)
    w = bias.eval()()
    place = (bias.spacing.round() + 2).long()
    for head in range(3):
        laid = torch.zeros(WINDOW)
        for slot in range(2):
            laid[tuple(place[head, slot])] += bias.weight[head, slot].detach()
        torch.testing.assert_close(w[head], laid)


def test_positions_that_are_not_learned_stay_where_they_are():
    ring = conv_bias("ring", ConvBiasSpec(9, WINDOW))
    assert [tuple(place) for place in ring.offset[:, 0].tolist()] == [*RING, RING[0]]
    torch.manual_seed(0)
    random = conv_bias("random", ConvBiasSpec(500, WINDOW))
    assert len({tuple(place) for place in random.offset[:, 0].tolist()}) == 25
    assert not ring.offset.requires_grad
    with pytest.raises(ValueError, match="3 x 3"):
        conv_bias("ring", ConvBiasSpec(2, (1, 1)))


@pytest.mark.parametrize("kind", ["topk", "spaced"])
@pytest.mark.parametrize("positions", [0, 26])
def test_positions_must_fit_the_window(kind, positions):
    with pytest.raises(ValueError, match="positions must be 1 to 25"):
        conv_bias(kind, ConvBiasSpec(2, WINDOW, positions=positions))


def test_words_at_fault_name_what_there_is():
    with pytest.raises(ValueError, match="topk, hard_concrete"):
        conv_bias("magic", ConvBiasSpec(2, WINDOW))
    with pytest.raises(ValueError, match=r"gate_weight needs model\.position_bias hard_concrete"):
        read_recipe("digits-conv", "sparsity.gate_weight=0.1")
    recipe = read_recipe("digits-conv", "sparsity.gate_weight=0.1", "model.position_bias=hard_concrete")
    model = create_model("aft_conv_digits", depth=2, position_bias="hard_concrete")
    assert recipe.sparsity.gate_weight == 0.1
    assert [len(count) for count in expected_positions(model)] == [8, 8]


@pytest.mark.parametrize("kind", ["topk", "hard_concrete", "entmax", "spaced"])
def test_other_places_can_be_drawn(kind):
    bias = conv_bias(kind, ConvBiasSpec(4, WINDOW, positions=2))
    torch.manual_seed(1)
    for parameter in bias.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    before = bias.eval()().clone()
    bias.redraw(WINDOW)
    assert not torch.equal(before, bias())
