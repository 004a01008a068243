"""Pruning position biases to indexing: criteria, budgets, compact models, and the measured ladder.

Run `python -m analyses.pruning CHECKPOINT --keep 1`, the same as `aft-lens prune`.
"""

from analyses.pruning.criteria import CRITERIA, Criterion, score
from analyses.pruning.cutting.compact import compact_model, masked_model
from analyses.pruning.cutting.finetune import finetune
from analyses.pruning.cutting.masks import BUDGETS, dropped_heads, select
from analyses.pruning.images import load_images
from analyses.pruning.measuring.cost import Latency
from analyses.pruning.measuring.ladder import PruneLadder, measure_masks, prune_to_indexing
from analyses.pruning.measuring.rung import AGREEMENT, Rung

__all__ = [
    "AGREEMENT",
    "BUDGETS",
    "CRITERIA",
    "Criterion",
    "Latency",
    "PruneLadder",
    "Rung",
    "compact_model",
    "dropped_heads",
    "finetune",
    "load_images",
    "masked_model",
    "measure_masks",
    "prune_to_indexing",
    "score",
    "select",
]
