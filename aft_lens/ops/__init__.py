"""The operators of the paper as pure functions on tensors (Eq. 2-6)."""

from aft_lens.ops.bias import BiasFactors, PreparedBias, expand_bias
from aft_lens.ops.conv import aft_conv, prepare_bias
from aft_lens.ops.full import aft_full, aft_local
from aft_lens.ops.indexed import aft_indexed
from aft_lens.ops.recurrent import (
    SimpleState,
    aft_local_step,
    aft_simple_step,
    include,
    local_state,
    simple_state,
    window_mean,
)
from aft_lens.ops.simple import aft_simple

__all__ = [
    "BiasFactors",
    "PreparedBias",
    "SimpleState",
    "aft_conv",
    "aft_full",
    "aft_indexed",
    "aft_local",
    "aft_local_step",
    "aft_simple",
    "aft_simple_step",
    "expand_bias",
    "include",
    "local_state",
    "prepare_bias",
    "simple_state",
    "window_mean",
]
