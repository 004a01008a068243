"""The fixed split that holds images out where a data set has none set apart."""

import numpy as np
from sklearn.model_selection import train_test_split

SPLIT_SEED = 0


def stratified(labels: np.ndarray, fraction: float) -> tuple[list[int], list[int]]:
    """Indices of a fixed split that keeps class shares: (the rest, the held-out fraction)."""
    rest, held = train_test_split(np.arange(len(labels)), test_size=fraction, stratify=labels, random_state=SPLIT_SEED)
    return sorted(rest.tolist()), sorted(held.tolist())
