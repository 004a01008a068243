"""Generation by state against the parallel causal forms, and the factorized bias modules."""

import math

import jaxtyping
import pytest
import torch

from aft_lens.layers.memory import Place, SumMemory, WindowMemory
from aft_lens.layers.position_bias import Factorized, LocalFactorized, pair_bias
from aft_lens.ops import (
    BiasFactors,
    aft_local,
    aft_local_step,
    aft_simple,
    aft_simple_step,
    local_state,
    reference,
    simple_state,
)

BIAS = torch.randn(9, 3, generator=torch.Generator().manual_seed(4))
"""w by target and distance."""


def inputs(length, level=1.0):
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, length, 3, generator=generator) for _ in range(3))
    return query, level * key, value


@pytest.mark.parametrize("level", [1.0, 30.0])
def test_simple_state_equals_the_parallel_form(level):
    query, key, value = inputs(63, level)
    state, rows = simple_state(2, 3), []
    for t in range(63):
        row, state = aft_simple_step(query[:, t], key[:, t], value[:, t], state)
        rows.append(row)
    torch.testing.assert_close(torch.stack(rows, 1), aft_simple(query, key, value, causal=True))
    assert sum(part.numel() for part in state) == 3 * 2 * 3


@pytest.mark.parametrize("window", [1, 2, 5, 100])
@pytest.mark.parametrize("level", [1.0, 30.0])
@pytest.mark.parametrize("factorized", [True, False])
def test_local_state_equals_the_parallel_form(window, level, factorized):
    query, key, value = inputs(40, level)
    torch.manual_seed(1)
    factors = BiasFactors(torch.randn(40, 4), torch.randn(40, 4))
    bias = factors if factorized else factors.target @ factors.source.T
    state, rows = local_state(2, 3), []
    for t in range(40):
        row, state = aft_local_step(query[:, t], key[:, t], value[:, t], bias, window, state)
        rows.append(row)
    torch.testing.assert_close(torch.stack(rows, 1), aft_local(query, key, value, bias, window, causal=True))
    assert state.key.shape[1] <= window
    with pytest.raises(ValueError, match="has 40 positions"):
        aft_local_step(query[:, 0], key[:, 0], value[:, 0], bias, window, state)
    with pytest.raises(ValueError, match="window_size must be 1 or more"):
        aft_local_step(query[:, 0], key[:, 0], value[:, 0], bias, 0, local_state(2, 3))


def test_states_are_as_wide_and_where_they_are_asked_for():
    for options, dtype, device in (
        ({}, torch.float32, "cpu"), ({"dtype": torch.float64}, torch.float64, "cpu"),
        ({"device": "meta"}, torch.float32, "meta"),
    ):  # fmt: skip
        far, state = simple_state(2, 3, **options), local_state(2, 3, **options)
        parts = [*far, *state.far, state.key, state.value]
        assert {(part.dtype, part.device.type) for part in parts} == {(dtype, device)}
        assert [part.shape for part in parts] == [(2, 3)] * 6 + [(2, 0, 3)] * 2
    far, state = simple_state(2, 3), local_state(2, 3)
    for part in (far, state.far):
        assert (part.peak == -math.inf).all()
        assert not part.num.any()
        assert not part.den.any()
    assert state.position == 0


def test_states_in_float64_are_exact_in_float64():
    query, key, value = (x.double() for x in inputs(12))
    bias = torch.randn(12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    simple, local = simple_state(2, 3, dtype=torch.float64), local_state(2, 3, dtype=torch.float64)
    rows = []
    for t in range(12):
        one, simple = aft_simple_step(query[:, t], key[:, t], value[:, t], simple)
        two, local = aft_local_step(query[:, t], key[:, t], value[:, t], bias, 4, local)
        rows.append((one, two))
    for found, expected in (
        (torch.stack([one for one, _ in rows], 1), reference.aft_simple(query, key, value, causal=True)),
        (torch.stack([two for _, two in rows], 1), reference.aft_local(query, key, value, bias, 4, causal=True)),
    ):
        torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("factorized", [True, False])
def test_a_state_keeps_its_dtype_and_rows_come_as_the_value(dtype, factorized):
    query, key, value = (x.to(dtype) for x in inputs(4))
    bias = BiasFactors(BIAS.to(dtype), BIAS.flip(0).to(dtype)) if factorized else BIAS[:, :1].expand(9, 9).to(dtype)
    simple, local = simple_state(2, 3), local_state(2, 3)
    for t in range(4):
        one, simple = aft_simple_step(query[:, t], key[:, t], value[:, t], simple)
        two, local = aft_local_step(query[:, t], key[:, t], value[:, t], bias, 2, local)
        assert one.dtype == two.dtype == dtype
    assert {part.dtype for part in (*simple, *local.far, local.key, local.value)} == {torch.float32}


def test_channels_and_sequences_far_apart_are_each_exact():
    query, key, value = inputs(12)
    key = key + torch.tensor([150.0, 0.0, -150.0]) + torch.tensor([300.0, -300.0]).view(2, 1, 1)
    bias = torch.randn(12, 12, generator=torch.Generator().manual_seed(1))
    simple, local, rows = simple_state(2, 3), local_state(2, 3), []
    for t in range(12):
        one, simple = aft_simple_step(query[:, t], key[:, t], value[:, t], simple)
        two, local = aft_local_step(query[:, t], key[:, t], value[:, t], bias, 4, local)
        rows.append(torch.cat([one, two], -1))
    expected = [reference.aft_simple(query, key, value, causal=True)]
    expected += [reference.aft_local(query, key, value, bias, 4, causal=True)]
    # Keys of some hundred have a rounding of 3e-5 in float32, which the weights take over.
    torch.testing.assert_close(torch.stack(rows, 1).double(), torch.cat(expected, -1), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_a_step_names_what_is_no_float(name, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as users call
    one = {part: torch.zeros(2, 3) for part in ("query", "key", "value")} | {name: torch.zeros(2, 3, dtype=torch.int64)}
    with pytest.raises(ValueError, match=f"{name} must be float16, .*; use {name}.float"):
        aft_simple_step(**one, state=simple_state(2, 3))
    with pytest.raises(ValueError, match=f"{name} must be float16, .*; use {name}.float"):
        aft_local_step(**one, position_bias=BIAS, window_size=2, state=local_state(2, 3))


def test_factorized_starts_as_in_the_paper():
    torch.manual_seed(0)
    bias = Factorized(400, 64)
    for part in bias.operand():
        assert abs(part.std().item() - 0.1) < 0.002
        assert abs(part.mean().item()) < 0.002


def test_local_factorized_is_banded():
    bias = pair_bias("factorized", 9, rank=2, window_size=3)
    assert isinstance(bias, LocalFactorized)
    w, band = bias(), bias.band()
    for t in range(9):
        for s in range(9):
            if abs(t - s) >= 3:
                assert w[t, s] == 0
            else:
                torch.testing.assert_close(w[t, s], band[t, s - t + 2])
    with pytest.raises(ValueError, match="window_size must be 1 or more"):
        LocalFactorized(9, 0)


@pytest.mark.parametrize("make", [lambda: SumMemory(1, 3, torch.device("cpu")), lambda: WindowMemory(1, 3, BIAS)])
def test_a_memory_that_can_read_nothing_gives_0_and_then_what_it_reads(make):
    """Keys of -inf are not read, whatever their values are; equal to the parallel form ever after."""
    query, key, value = (x[:1] for x in inputs(9))
    key[:, :4], value[:, 1] = -math.inf, math.nan
    memory = make()
    rows = [memory.read(query[:, t], key[:, t], value[:, t], Place.at(t)) for t in range(9)]
    found, value = torch.stack(rows, 1), value.nan_to_num()
    assert (found[:, :4] == 0).all()
    if isinstance(memory, SumMemory):
        expected = aft_simple(query, key, value, causal=True)
    else:
        w = torch.zeros(9, 9)
        for t in range(9):
            for distance in range(min(t + 1, 3)):
                w[t, t - distance] = BIAS[t, distance]
        expected = aft_local(query, key, value, w, 3, causal=True)
    torch.testing.assert_close(found, expected)
