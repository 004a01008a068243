"""Pruning position biases to indexing: criteria, budgets, compact models, and the measured ladder.

Run `python -m analyses.pruning CHECKPOINT --keep 1`, the same as `aft-lens prune`.
"""

from analyses.pruning.compact import compact_model, masked_model
from analyses.pruning.criteria import CRITERIA, score
from analyses.pruning.ladder import PruneLadder, Rung, measure_masks, prune_to_indexing
from analyses.pruning.masks import BUDGETS, dropped_heads, select
from analyses.pruning.measure import Latency

__all__ = [
    "BUDGETS",
    "CRITERIA",
    "Latency",
    "PruneLadder",
    "Rung",
    "compact_model",
    "dropped_heads",
    "masked_model",
    "measure_masks",
    "prune_to_indexing",
    "score",
    "select",
]
