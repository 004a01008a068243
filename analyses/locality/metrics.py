"""Locality of a map by offset: each metric with its definition, unit and how to read it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import entr

from aft_lens.statistics import percentile_interval
from analyses.maps.frame import framed, mean_distance, offsets
from analyses.offset_maps import OffsetMaps, Remainder

Values = dict[str, Float[np.ndarray, "*n"]]


@dataclass(frozen=True)
class Metric:
    """One number of a head; p is its map scaled to sum 1 and |offset| the distance from the target."""

    key: str
    name: str
    unit: str
    definition: str
    reading: str


METRICS = (
    Metric(
        "distance", "mean distance", "patches", "sum of p |offset|", "lower is more local; 0 reads the target alone",
    ),
    Metric(
        "distance_pixels", "mean distance", "pixels", "the same with offsets times the patch's sides",
        "compares models of other patch sizes",
    ),
    Metric(
        "relative", "distance / uniform", "ratio", "mean distance over that of the uniform map of the same frame",
        "below 1 is more local than chance; compares models with other frames",
    ),
    Metric(
        "entropy", "entropy", "nats", "-sum of p log p",
        "lower is sparser, near or far; that of the averaged map, so no less than a single image's on average",
    ),
    Metric("effective", "effective offsets", "offsets", "exp(entropy)", "so many equal offsets would be as spread"),
    Metric(
        "near", "mass near", "share", "sum of p over |offset| <= radius",
        "higher is more local; radius 1.5 is the 3 x 3 around the target",
    ),
    Metric(
        "symmetry", "symmetry", "correlation",
        "Pearson correlation of p with its point reflection p(-offset), the target itself left out",
        "1 is symmetric, noise is near 0, -1 is opposite; undefined for a flat map; attention between like patches is "
        "symmetric without any position: compare with random weights",
    ),
    Metric(
        "peak", "peak", "Δy, Δx in patches", "the offset where p is largest",
        "0, 0 is a head that peaks at its target; says little where p is nearly flat",
    ),
)  # fmt: skip
"""In the order in which they are printed."""
SCALARS = tuple(metric.key for metric in METRICS if metric.key != "peak")
FLAT = 1e-9
"""Standard deviation over mean below which a map is flat: rounding, not shape."""


@dataclass(frozen=True)
class HeadLocality:
    """The metrics of every head of one source; keys as in `METRICS`."""

    label: str
    kind: str
    """"attention" or "bias"."""
    control: bool
    """True: random weights."""
    images: int
    frame: tuple[int, int]
    """Rows and columns of the maps that were measured, in offsets."""
    values: Values
    """`layer head`, the peak as "peak_y" and "peak_x"; NaN where a head has no mass (w = 0 everywhere)."""
    uniform: dict[str, float]
    """The same metrics of the uniform map."""
    interval: Values | None
    """`2 layer head`: 95 % over bootstrap samples of the images; None for position biases."""
    layer_interval: Values | None
    """`2 layer`: the same of the mean over a layer's heads."""
    peak_kept: Float[np.ndarray, "layer head"] | None
    """Share of the bootstrap samples in which a head peaks at the same offset."""
    remainder_share: Float[np.ndarray, "layer head"]
    """Weight of the global remainder over all weight, see `OffsetMaps.remainder_share`."""
    drawn: str = ""
    """Of which data set the images are, and which of it; empty for position biases."""

    @property
    def name(self) -> str:
        """The label, marked where the weights are random."""
        return f"{self.label}, random weights" if self.control else self.label


def measure(
    mass: Float[np.ndarray, "*n dy dx"],
    *,
    uniform: Float[np.ndarray, "dy dx"] | None = None,
    patch: tuple[float, float] = (1.0, 1.0),
    radius: float = 1.5,
) -> Values:
    """Every metric of non-negative maps with the target at the middle; NaN where a map has no mass.

    `uniform` is the map that "relative" compares with (flat if None), `patch` the rows and columns of a patch in
    pixels, `radius` is in patches. The peak is given as "peak_y" and "peak_x". Raises ValueError on negative or
    infinite weights, even sides or a negative radius.
    """
    if not np.isfinite(mass).all() or (mass < 0).any():
        raise ValueError("mass must be finite and not negative; give attention weights or |exp(w) - 1|")
    if any(side % 2 == 0 for side in mass.shape[-2:]):
        raise ValueError(f"mass must have odd sides with the target in the middle, got {mass.shape[-2:]}")
    if radius < 0:
        raise ValueError(f"radius must be 0 or more patches, got {radius}")
    y, x = offsets(mass.shape[-2:])
    flat = np.ones(mass.shape[-2:]) if uniform is None else uniform
    reference = mean_distance(flat)
    total = mass.sum((-2, -1), keepdims=True)
    p = np.divide(mass, total, out=np.full(mass.shape, np.nan), where=total > 0)
    entropy = entr(p).sum((-2, -1))
    row, column = np.divmod(p.reshape(*p.shape[:-2], -1).argmax(-1), p.shape[-1])
    known = total[..., 0, 0] > 0
    distance = mean_distance(mass)
    return {
        "distance": distance,
        "relative": distance / reference if reference else np.full(distance.shape, np.nan),
        "distance_pixels": (p * np.hypot(patch[0] * y, patch[1] * x)).sum((-2, -1)),
        "entropy": entropy,
        "effective": np.exp(entropy),
        "near": (p * (np.hypot(y, x) <= radius)).sum((-2, -1)),
        "peak_y": np.where(known, row - p.shape[-2] // 2, np.nan),
        "peak_x": np.where(known, column - p.shape[-1] // 2, np.nan),
        "symmetry": _symmetry(p),
    }


def head_locality(
    maps: OffsetMaps,
    *,
    radius: float = 1.5,
    window: int | None = None,
    remainder: Remainder = "apart",
    plain: bool = False,
) -> HeadLocality:
    """Measure every head of a source, with 95 % bootstrap intervals over images where it has bootstrap samples.

    The map is `OffsetMaps.mass`. A ViT's is border-corrected: every offset counts as if all targets had it, so the
    map is the head's kernel and its uniform baseline is flat. With `plain`, an offset counts as often as the grid has
    it: the mean distance is then the mean attention distance of the ViT paper (Dosovitskiy et al., 2021), and the
    uniform baseline falls off towards far offsets in the same way. `window` crops every map to that side first, so
    that models with other frames can be compared.

    The bootstrap draws a Poisson(1) count for each image, in place of the multinomial counts of drawing n images from
    n: no count depends on how many images there are, so the samples are summed along a stream of unknown length and
    memory does not grow with it. Intervals are percentiles of the metric of the resampled mean map; they cover the
    choice of images, not of training seeds.
    """

    def prepared(mass: np.ndarray) -> np.ndarray:
        return mass if window is None else framed(mass, (window, window))

    def measured(excess: np.ndarray) -> Values:
        mass = prepared(maps.mass(excess, remainder=remainder, plain=plain))
        return measure(mass, uniform=flat, patch=maps.patch, radius=radius)

    flat = prepared(maps.uniform(remainder=remainder, plain=plain))
    values = measured(maps.excess)
    uniform = measure(flat, uniform=flat, patch=maps.patch, radius=radius)
    interval = layers = kept = None
    if maps.resampled is not None:
        samples = [measured(excess) for excess in maps.resampled]
        stacked = {key: np.stack([sample[key] for sample in samples]) for key in values}
        interval = {key: percentile_interval(sample) for key, sample in stacked.items()}
        layers = {key: percentile_interval(layer_means(sample)) for key, sample in stacked.items()}
        kept = np.mean([(s["peak_y"] == values["peak_y"]) & (s["peak_x"] == values["peak_x"]) for s in samples], axis=0)
    return HeadLocality(
        maps.label, maps.kind, maps.control, maps.images, flat.shape, values,
        {key: float(uniform[key]) for key in SCALARS}, interval, layers, kept,
        maps.remainder_share, maps.drawn,
    )  # fmt: skip


def layer_means(values: np.ndarray) -> np.ndarray:
    """Mean over the heads (the last axis) that have a value, NaN where none has."""
    known = np.isfinite(values)
    return np.where(known, values, 0.0).sum(-1) / np.where(known.any(-1), known.sum(-1), np.nan)


def _symmetry(p: Float[np.ndarray, "*n dy dx"]) -> Float[np.ndarray, "*n"]:
    """Correlation of a map with its point reflection over the offsets but (0, 0)."""
    flat = p.reshape(*p.shape[:-2], -1)
    around = np.delete(flat, flat.shape[-1] // 2, axis=-1)
    if not around.shape[-1]:
        return np.full(p.shape[:-2], np.nan)
    mean = around.mean(-1, keepdims=True)
    centred = around - mean
    variance = np.square(centred).mean(-1)
    covariance = (centred * centred[..., ::-1]).mean(-1)
    shaped = variance > np.square(FLAT * mean[..., 0])
    return np.divide(covariance, variance, out=np.full(variance.shape, np.nan), where=shaped)
