"""Generation by state against the parallel causal forms, and the factorized bias modules."""

import pytest
import torch

from aft_lens.layers.position_bias import Factorized, LocalFactorized, pair_bias
from aft_lens.ops import (
    BiasFactors,
    aft_local,
    aft_local_step,
    aft_simple,
    aft_simple_step,
    local_state,
    simple_state,
)


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
