"""Pruning position biases to indexing: criteria, budgets, compact models, and the measured ladder.

Run `python -m analyses.pruning CHECKPOINT --keep 1`, the same as `aft-lens prune`.
"""

from analyses.pruning.compact import compact_model, masked_model
from analyses.pruning.criteria import CRITERIA, score
from analyses.pruning.finetune import finetune
from analyses.pruning.ladder import PruneLadder, measure_masks, prune_to_indexing
from analyses.pruning.masks import BUDGETS, dropped_heads, select
from analyses.pruning.measure import Latency
from analyses.pruning.rung import AGREEMENT, Rung

__all__ = [
    "AGREEMENT",
    "BUDGETS",
    "CRITERIA",
    "Latency",
    "PruneLadder",
    "Rung",
    "compact_model",
    "dropped_heads",
    "finetune",
    "masked_model",
    "measure_masks",
    "prune_to_indexing",
    "score",
    "select",
]
