"""Result of an analysis to the stack of maps that the mosaics draw, all weights in one unit."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from aft_lens.layers.position_bias import one_position
from analyses.attention import AttentionMaps
from analyses.bias import BiasMaps
from analyses.keys import KeyMaps
from app.views.stack import MapStack


def of_bias(result: BiasMaps, label: str) -> MapStack:
    """exp(w) − 1: by offset for AFT-conv (Fig. 6 to 8), over the grid for a few targets for AFT-full (Fig. 3)."""
    return MapStack(
        result.maps,
        "exp(w) − 1",
        by_offset=result.targets is None,
        label=label,
        targets=result.targets,
        distance=result.mean_distance,
    )


def of_attention(result: AttentionMaps, label: str, *, excess: bool = True) -> MapStack:
    """Relative attention by offset (Fig. 1, left), as excess over uniform attention: the scale of exp(w) − 1."""
    if not excess:
        return MapStack(result.maps, "mean attention", label=label, signed=False, distance=result.mean_distance)
    return MapStack(result.excess, "n × attention − 1", label=label, distance=result.mean_distance)


def of_keys(result: KeyMaps, label: str) -> MapStack:
    """Keys on the image's grid, each head's mean taken off (a constant added to K changes nothing)."""
    centred = result.maps - result.maps.mean((2, 3), keepdims=True)
    return MapStack(centred, "K − mean", by_offset=False, label=label)


def of_snapshots(
    snapshots: Mapping[int, Mapping[str, Tensor]], label: str, *, single: bool = False
) -> dict[int, MapStack]:
    """exp(w) − 1 of AFT-conv by epoch, from the position biases (`h y x` a layer) that a run kept.

    With `single` only a head's largest w counts, as in a single-position model outside of training: runs keep w
    before sampling.
    """
    return {
        epoch: MapStack(
            np.stack([np.expm1((one_position(w) if single else w).double().numpy()) for w in biases.values()]),
            "exp(w) − 1",
            label=label,
        )
        for epoch, biases in snapshots.items()
        if biases
    }
