"""The position biases of a run by epoch, as maps."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from aft_lens.layers.position_bias import one_position
from analyses.maps.head_maps import HeadMaps


def bias_by_epoch(
    snapshots: Mapping[int, Mapping[str, Tensor]], label: str, *, single: bool = False
) -> dict[int, HeadMaps]:
    """exp(w) − 1 of AFT-conv by epoch, from the position biases (`h y x` a layer) that a run kept.

    With `single` only a head's largest w counts, as in a single-position model outside of training: runs keep w
    before sampling.
    """
    return {
        epoch: HeadMaps(
            np.stack([np.expm1((one_position(w) if single else w).double().numpy()) for w in biases.values()]),
            "exp(w) − 1",
            label=label,
        )
        for epoch, biases in snapshots.items()
        if biases
    }
