"""The fixed split that holds images out where a data set has none set apart."""

from typing import TYPE_CHECKING

import numpy as np

from aft_lens.later import later

if TYPE_CHECKING:
    from sklearn import model_selection
else:
    model_selection = later("sklearn.model_selection")

SPLIT_SEED = 0


def stratified(labels: np.ndarray, fraction: float) -> tuple[list[int], list[int]]:
    """Indices of a fixed split that keeps class shares: (the rest, the held-out fraction)."""
    rest, held = model_selection.train_test_split(
        np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=SPLIT_SEED
    )
    return sorted(rest.tolist()), sorted(held.tolist())
