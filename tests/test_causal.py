"""Every causal form: no later source moves a bit of an earlier target, and what reads nothing is 0."""

from functools import partial

import pytest
import torch
from test_ops_pairs import by_form

from aft_lens.layers.mixer import MIXERS, MixerSpec
from aft_lens.models import causal_mixers
from aft_lens.ops import (
    BiasFactors,
    aft_conv,
    aft_full,
    aft_local,
    aft_local_step,
    aft_simple,
    aft_simple_step,
    local_state,
    reference,
    simple_state,
)

T, D, WINDOW = 70, 3, 5
INF = float("inf")


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(form, query, key, value, bias):
    """AFT-full or AFT-local by one form, the bias given whole."""
    return by_form(form)(query, key, value, [bias], WINDOW, causal=True)


def full(query, key, value, bias):
    return aft_full(query, key, value, bias, causal=True)


def local(query, key, value, bias):
    return aft_local(query, key, value, bias, WINDOW, causal=True)


def simple(query, key, value, bias):
    return aft_simple(query, key, value, causal=True)


def stepped(query, key, value, bias):
    """AFT-local one position at a time."""
    state, rows = local_state(len(key), D), []
    for t in range(key.shape[1]):
        row, state = aft_local_step(query[:, t], key[:, t], value[:, t], bias, WINDOW, state)
        rows.append(row)
    return torch.stack(rows, 1)


def simple_stepped(query, key, value, bias):
    state, rows = simple_state(len(key), D), []
    for t in range(key.shape[1]):
        row, state = aft_simple_step(query[:, t], key[:, t], value[:, t], state)
        rows.append(row)
    return torch.stack(rows, 1)


def conv(grid, implementation, outside, query, key, value, bias):
    """AFT-conv of one channel a head, biases from the first offsets of `bias`."""
    tokens = [x.transpose(1, 2).unflatten(2, grid) for x in (query, key, value)]
    side = 2 * WINDOW + 1 if len(grid) == 1 else 3
    window = bias.flatten()[: D * side ** len(grid)].view(D, *[side] * len(grid))
    gated = aft_conv(
        tokens[0].unsqueeze(2), tokens[1], tokens[2].unsqueeze(2), window, causal=True, outside=outside,
        implementation=implementation,
    )  # fmt: skip
    return gated.flatten(2).transpose(1, 2)


def definition(query, key, value, bias):
    return reference.aft_local(query, key, value, bias, WINDOW, causal=True)


FORMS = {
    "full": full, "local": local, "local rows": partial(whole, "rows"), "local band": partial(whole, "band"),
    "simple": simple, "step": stepped, "simple step": simple_stepped, "definition": definition,
    **{
        f"conv {grid} {form} {outside}": partial(conv, grid, form, outside)
        for grid, forms in (((T,), ("auto", "matmul", "banded", "rowwise")), ((7, 10), ("auto", "matmul", "rowwise")))
        for form in forms
        for outside in ("global", "none")
    },
}  # fmt: skip
ORACLES = {
    "full": partial(reference.aft_full, causal=True),
    "simple": lambda query, key, value, bias: reference.aft_simple(query, key, value, causal=True),
}
ORACLES["simple step"] = ORACLES["simple"]
LATER = [
    (40, 90.0, 1e6), (65, -90.0, 3e38), (41, INF, 1.0), (42, 1.0, float("nan")), (33, 1.0, INF),
    (68, float("nan"), 1.0), (1, 1.0, -INF), (69, -INF, 1.0),
]  # fmt: skip
"""From which position on, and what keys and values are there."""


@pytest.mark.parametrize("form", FORMS)
def test_no_later_source_moves_a_bit(form):
    query, key, value, bias = draw(2, T, D), draw(2, T, D, seed=1), draw(2, T, D, seed=2), draw(T, T, seed=3)
    before = FORMS[form](query, key, value, bias)
    for cut, later_key, later_value in LATER:
        k, v = key.clone(), value.clone()
        k[:, cut:], v[:, cut:] = later_key, later_value
        after = FORMS[form](query, k, v, bias)
        assert torch.equal(before[:, :cut], after[:, :cut]), (cut, later_key, later_value)
        assert not torch.equal(before[:, cut:], after[:, cut:])


@pytest.mark.parametrize("form", [name for name in FORMS if "none" not in name])
@pytest.mark.parametrize("missing", ["first key", "first keys of a channel", "all keys", "all biases"])
def test_what_reads_nothing_is_nothing(form, missing):
    """Forward and gradients; with biases of -inf in the window, targets read what lies before it."""
    query, key, value, bias = draw(2, T, D), draw(2, T, D, seed=1), draw(2, T, D, seed=2), draw(T, T, seed=3)
    if missing == "first key":
        key[0, 0] = -INF
    elif missing == "first keys of a channel":
        key[:, :40, 1] = -INF
    elif missing == "all keys":
        key[:] = -INF
    else:
        bias[:] = -INF
    inputs = [x.requires_grad_() for x in (query, key, value)]
    found = FORMS[form](*inputs, bias)
    if form.startswith("conv"):
        grid, _, outside = FORMS[form].args
        exact = partial(conv, grid, "rowwise", outside)
    else:
        exact = ORACLES.get(form, definition)
    right = exact(*inputs, bias)
    torch.testing.assert_close(found, right.to(found.dtype))
    nothing = (right == 0).all(0).any()
    assert bool(nothing) == (missing != "first key" and not (missing == "all biases" and "simple" in form))
    upstream = draw(2, T, D, seed=5)
    for ours, true in zip(
        torch.autograd.grad((found * upstream).sum(), inputs, materialize_grads=True),
        torch.autograd.grad((right * upstream).sum(), inputs, materialize_grads=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, true, rtol=1e-4, atol=1e-5)


def test_rowwise_equals_the_definition_where_nothing_is_read():
    key, value, bias = draw(2, 2, 4, 5), draw(2, 2, 3, 4, 5, seed=1), draw(2, 3, 3, seed=2)
    key[0, :, 0, 0], key[1] = -INF, -INF
    for outside in ("global", "none"):
        found = aft_conv(None, key, value, bias, causal=True, outside=outside, implementation="rowwise")
        right = reference.aft_conv(None, key, value, bias, causal=True, outside=outside)
        torch.testing.assert_close(found, right.float())
        assert (found[0, :, :, 0, 0] == 0).all()
        assert (found[1] == 0).all()
        bias = torch.full_like(bias, -INF)


@pytest.mark.parametrize("level", [20.0, 300.0, 1000.0])
@pytest.mark.parametrize("shape", ["noise", "up", "down", "jumps"])
def test_simple_is_exact_for_any_keys(level, shape):
    ramp = torch.linspace(-level, level, T).view(1, T, 1)
    key = {
        "noise": (draw(2, T, D).clamp(-1, 1) * level).contiguous(), "up": ramp.expand(2, T, D),
        "down": -ramp.expand(2, T, D), "jumps": level * draw(2, T, D).sign(),
    }[shape] + draw(2, T, D, seed=4)  # fmt: skip
    inputs = [draw(2, T, D, seed=1).requires_grad_(), key.requires_grad_(), draw(2, T, D, seed=2).requires_grad_()]
    wide = [x.detach().double().requires_grad_() for x in inputs]
    found, right = simple(*inputs, None), reference.aft_simple(*wide, causal=True)
    torch.testing.assert_close(found.double(), right, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(simple_stepped(*inputs, None), found, rtol=1e-4, atol=1e-6)
    upstream = draw(2, T, D, seed=5)
    ours, true = torch.autograd.grad(found, inputs, upstream), torch.autograd.grad(right, wide, upstream.double())
    for one, other in zip(ours, true, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [1, 5, 100])
@pytest.mark.parametrize("masked", [False, True])
def test_steps_equal_the_parallel_form(window, masked):
    query, key, value = draw(2, T, D), 30 * draw(2, T, D, seed=1), draw(2, T, D, seed=2)
    key = key.masked_fill(draw(2, T, D, seed=7) > 0.5, -INF) if masked else key
    bias = BiasFactors(draw(T, 4, seed=3), draw(T, 4, seed=4))
    state, rows = local_state(2, D), []
    for t in range(T):
        row, state = aft_local_step(query[:, t], key[:, t], value[:, t], bias, window, state)
        rows.append(row)
    torch.testing.assert_close(torch.stack(rows, 1), aft_local(query, key, value, bias, window, causal=True))


@pytest.mark.parametrize("name", [name for name in causal_mixers() if name != "reformer"])
def test_no_later_token_moves_a_bit_of_a_mixer(name):
    """Reformer sorts all tokens into its buckets, so that later ones move which earlier ones share one."""
    torch.manual_seed(0)
    spec = MixerSpec(
        dim=16, num_heads=2, grid=(24,), window_size=6, causal=True, position_bias="factorized", bias_rank=4
    )
    mixer = MIXERS[name].build(spec).eval()
    x = draw(2, 24, 16)
    with torch.no_grad():
        before = mixer(x, (24,))
        for cut, later in ((1, 3.0), (15, -30.0), (20, 100.0)):
            changed = x.clone()
            changed[:, cut:] = later * draw(2, 24 - cut, 16, seed=cut)
            after = mixer(changed, (24,))
            assert torch.equal(before[:, :cut], after[:, :cut]), (cut, later)
            assert not torch.equal(before[:, cut:], after[:, cut:])


@pytest.mark.parametrize("name", causal_mixers())
@pytest.mark.parametrize("later", [float("nan"), INF])
def test_no_later_token_that_is_not_finite_reaches_an_earlier_one(name, later):
    torch.manual_seed(0)
    spec = MixerSpec(dim=16, num_heads=2, grid=(24,), window_size=6, causal=True, position_bias="free", bias_rank=4)
    mixer = MIXERS[name].build(spec).eval()
    x = draw(1, 24, 16)
    changed = x.clone()
    changed[:, 15:] = later
    with torch.no_grad():
        before, after = mixer(x, (24,)), mixer(changed, (24,))
    assert not after[:, 15:].isfinite().all(-1).any()
    if name == "reformer":  # its buckets are shared by all tokens
        assert after[:, :15].isfinite().all()
    else:
        assert torch.equal(before[:, :15], after[:, :15])
