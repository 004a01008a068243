"""From sums to findings: one number of a head or layer with its interval, how strong it is, and what it says."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from aft_lens.statistics import Interval, jackknife, percentile_interval
from analyses.maps.frame import mean_distance
from analyses.scan.gather import LARGE, Sums
from analyses.trained_vit.heads import place_words

DRAWS = 400
"""Bootstrap samples of the groups of images."""
WEAK = 0.05
"""Strength up to which a finding is left out: its interval hardly leaves what is to be expected of any head."""
FLAT, FEW = 0.9, 0.5
"""Share of the patches from which on a head reads all alike, and up to which it reads few."""
CENTRE = 4
"""Times its share of flat attention that a place of the grid may have without being singled out: a local head reads the
middle more often than the border."""
KINDS = {
    "offset": "reads one offset",
    "local": "looks near",
    "far": "looks far",
    "position": "is explained by offset",
    "places": "has logits of place alone",
    "flat": "reads all patches alike",
    "content": "reads few patches, which the image chooses",
    "prefix": "reads class or register tokens",
    "place": "reads one place of the grid",
    "outlier": "reads patches of large norm",
    "bias": "needs its position bias",
    "tokens": "patches know their place",
    "norms": "patches of large norm",
    "registers": "prefix tokens of large norm",
}
"""What a finding is about, in words."""


@dataclass(frozen=True)
class Finding:
    """One number with a 95 % interval over images."""

    kind: str
    """Of `KINDS`."""
    layer: int
    """Of findings about tokens, the one that they enter; one more than there are for those that leave the last."""
    head: int | None
    """None: the layer as a whole."""
    value: float
    interval: Interval
    expected: float
    """What it would be of a head that does nothing of the kind, e.g. of flat attention."""
    strength: float
    """How far the near end of the interval is from what is expected, 0 to 1: what findings are ranked by."""
    words: str

    @property
    def place(self) -> str:
        """The head as LAYER.HEAD, the layer, or between which layers the tokens are."""
        if self.head is not None:
            return f"head {self.layer}.{self.head}"
        return f"layer {self.layer}" if self.kind == "bias" else f"before layer {self.layer}"


@dataclass(frozen=True)
class Measures:
    """Every head by number, `draw layer head`: the data first, then bootstrap samples of the images."""

    distance: Float[np.ndarray, "draw layer head"]
    """Mean distance of attention to patches, in patches."""
    strongest: Float[np.ndarray, "draw layer head"]
    """Share of the attention to patches at the offset that has most, among targets that have it."""
    position: Float[np.ndarray, "draw layer head"]
    """Share of the variance of the attention about uniform that offset explains, 0 to 1; NaN where it is uniform."""
    effective: Float[np.ndarray, "draw layer head"]
    """exp(mean entropy) over the number of patches: share of the patches that are read, as if alike."""
    prefix: Float[np.ndarray, "draw layer head p"]
    """Share of a patch's attention that each prefix token gets."""
    place: Float[np.ndarray, "draw layer head"]
    """Share of the attention that the place of the grid gets that gets most."""
    outlier: Float[np.ndarray, "draw layer head"]
    """Share of the attention to patches that patches of large norm get; NaN where there are none."""
    offsets: Float[np.ndarray, "layer head 2"]
    """The strongest offset, (dy, dx)."""
    places: Float[np.ndarray, "layer head 2"]
    """The place, (row, column)."""
    flat: float
    """Mean distance of attention that is the same everywhere, in patches."""

    def interval(self, field: str) -> Float[np.ndarray, "2 layer head"]:
        """95 % of one of the measures."""
        values = getattr(self, field)[1:]
        return percentile_interval(values)


def measures(sums: Sums, *, seed: int = 0) -> Measures:
    """Every head's numbers on the images and on samples of them."""
    g, n = len(sums.images), int(np.prod(sums.grid))
    drawn = np.random.default_rng(seed).multinomial(g, np.full(g, 1 / g), DRAWS)
    weight = np.concatenate([np.ones((1, g)), drawn]).astype(float)
    images = weight @ sums.images

    def over(values: np.ndarray) -> np.ndarray:
        """Sums over groups by draw."""
        return np.tensordot(weight, values, 1)

    rows, columns = (side // 2 for side in sums.folded.shape[-2:])
    total = sums.folded.sum(0)
    best = (total / sums.targets).reshape(*total.shape[:2], -1).argmax(-1)
    dy, dx = np.unravel_index(best, total.shape[-2:])
    layer, head = np.ogrid[: total.shape[0], : total.shape[1]]
    strongest = over(sums.folded[:, layer, head, dy, dx]) / (images[:, None, None] * sums.targets[dy, dx])
    hypot = np.hypot(*np.meshgrid(np.arange(-rows, rows + 1), np.arange(-columns, columns + 1), indexing="ij"))
    distance = over((sums.folded * hypot).sum((-2, -1))) / over(sums.folded.sum((-2, -1)))
    position = np.full(distance.shape, np.nan)
    for draw in range(len(weight)):  # one at a time: maps of all draws would not fit
        folded = np.tensordot(weight[draw], sums.folded, 1)
        mean = folded / (images[draw] * sums.targets)
        spread = np.tensordot(weight[draw], sums.square, 1) - images[draw]
        between = (folded * mean).sum((-2, -1)) - images[draw]
        position[draw] = np.divide(
            between, spread, out=np.full(spread.shape, np.nan), where=spread > 1e-6 * images[draw]
        )
    column = sums.column.sum(0)
    most = column.argmax(-1)
    place = over(np.take_along_axis(sums.column, most[None, ..., None], -1)[..., 0]) / (images[:, None, None] * n)
    outlier = np.full(distance.shape, np.nan)
    if sums.to_outliers.size and sums.outliers.sum() > 0:
        outlier = over(sums.to_outliers) / (images[:, None, None] * n)
    return Measures(
        distance, strongest, position, np.exp(over(sums.entropy) / (images[:, None, None] * n)) / n,
        over(sums.prefix) / (images[:, None, None, None] * n), place, outlier,
        np.stack([dy - rows, dx - columns], -1), np.stack(np.unravel_index(most, sums.grid), -1),
        float(mean_distance(sums.targets)),
    )  # fmt: skip


def _percent(value: float, interval: Interval) -> str:
    return f"{100 * value:.0f} % [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]"


def _number(value: float, interval: Interval) -> str:
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _read(dy: int, dx: int) -> str:
    """What a head with this strongest offset reads."""
    if max(abs(dy), abs(dx)) > 1:
        return f"one offset, {place_words(dy, dx)}"
    near = place_words(dy, dx)
    return near if (dy, dx) == (0, 0) else f"the neighbour {'on the ' if near in ('left', 'right') else ''}{near}"


def head_findings(found: Measures, grid: tuple[int, int], prefix: tuple[str, ...]) -> list[Finding]:
    """What the heads do; `prefix` names the prefix tokens. Weak findings are left out."""
    heads = np.ndindex(*found.distance.shape[1:])
    return [one for layer, head in heads for one in _one_head(found, int(layer), int(head), grid, prefix) if one]


def _one_head(
    found: Measures, layer: int, head: int, grid: tuple[int, int], prefix: tuple[str, ...]
) -> Iterator[Finding | None]:
    """Each kind of finding about a head, None where there is nothing to say."""
    n, at, name = grid[0] * grid[1], (slice(None), layer, head), f"head {layer}.{head}"

    def say(
        kind: str, values: Float[np.ndarray, "draw"], expected: float, strength: Callable[[Interval], float],
        words: str, form: Callable[[float, Interval], str] = _percent,
    ) -> Finding | None:  # fmt: skip
        """`words` have a place for the number and its interval."""
        if not np.isfinite(values).all():
            return None
        low, high = (float(end) for end in percentile_interval(values[1:]))
        strong = min(1.0, strength((low, high)))
        said = words.format(form(float(values[0]), (low, high)))
        return (
            Finding(kind, layer, head, float(values[0]), (low, high), expected, strong, said) if strong > WEAK else None
        )

    (dy, dx), (row, column) = found.offsets[layer, head].tolist(), found.places[layer, head].tolist()
    position = found.position[at]
    explained = float(np.nan_to_num(position[0], nan=1.0))
    far = f"{name} looks {{}} patches far, flat attention {found.flat:.2f}"
    yield say("offset", found.strongest[at], 1 / n, lambda i: (i[0] - 1 / n) / (1 - 1 / n),
              f"{name} reads {_read(dy, dx)}: {{}} of its attention to patches")  # fmt: skip
    yield say("local", found.distance[at], found.flat, lambda i: 1 - i[1] / found.flat, far, _number)
    yield say("far", found.distance[at], found.flat, lambda i: i[0] / found.flat - 1, far, _number)
    yield say("position", position, 0.0, lambda i: i[0], f"offset explains {{}} of the variance of {name}'s attention")
    yield say("flat", found.effective[at], 1.0, lambda i: (i[0] - FLAT) / (1 - FLAT),
              f"{name} reads all patches alike, as many as {{}} of them")  # fmt: skip
    yield say("content", found.effective[at], 1.0, lambda i: (1 - i[1] / FEW) * (1 - explained),
              f"{name} reads few patches, as many as {{}} of them; offset explains {100 * explained:.0f} % of where"
    )  # fmt: skip
    for token, words in enumerate(prefix):
        yield say("prefix", found.prefix[(*at, token)], 1 / (n + len(prefix)), lambda i: i[0],
                  f"patches of {name} give {{}} of their attention to {words}")  # fmt: skip
    yield say("place", found.place[at], 1 / n, lambda i: (i[0] - CENTRE / n) / (1 - CENTRE / n),
              f"{name} reads row {row}, column {column} of the grid whatever the target: {{}} of its attention"
    )  # fmt: skip
    yield say("outlier", found.outlier[at], 0.0, lambda i: i[0],
              f"{name} gives {{}} of its attention to patches of large norm")  # fmt: skip


def layer_findings(sums: Sums, prefix: tuple[str, ...], *, seed: int = 0) -> list[Finding]:
    """What the tokens between the blocks are."""
    if not sums.norms.size:
        return []
    made = []
    n, g = int(np.prod(sums.grid)), len(sums.images)
    drawn = np.random.default_rng(seed).multinomial(g, np.full(g, 1 / g), DRAWS)
    weight = np.concatenate([np.ones((1, g)), drawn]).astype(float)
    images = weight @ sums.images
    depth = sums.norms.shape[1] - 1

    def where(layer: int) -> str:
        return f"that enter layer {layer}" if layer < depth else f"that leave layer {depth - 1}"

    share = (weight @ sums.outliers) / (images[:, None] * n)
    norms = np.tensordot(weight, sums.norms, 1) / images[:, None, None]
    layer = int(share[0].argmax())
    low, high = (float(end) for end in percentile_interval(share[1:, layer]))
    if low > 0:
        largest = norms[0, layer, -1]
        made.append(Finding(
            "norms", layer, None, float(share[0, layer]), (low, high), 0.0, min(1.0, 10 * low),
            f"{_percent(share[0, layer], (low, high))} of the patches {where(layer)} have over {LARGE:g} times the "
            f"median norm, the largest {largest:.1f} times",
        ))  # fmt: skip
    for token, words in enumerate(prefix):
        layer = int(norms[0, :, token].argmax())
        low, high = (float(end) for end in percentile_interval(norms[1:, layer, token]))
        if low > LARGE:
            made.append(Finding(
                "registers", layer, None, float(norms[0, layer, token]), (low, high), 1.0, 1 - LARGE / low,
                f"the norm of {words} among the tokens {where(layer)} is "
                f"{_number(norms[0, layer, token], (low, high))} times the median patch's",
            ))  # fmt: skip
    for layer in sorted({int(sums.placed.mean(0).argmax()), depth}):
        value, bounds = jackknife(sums.placed[:, layer])
        if bounds[0] > WEAK:
            made.append(Finding(
                "tokens", layer, None, value, bounds, 0.0, min(1.0, bounds[0]),
                f"place explains {_percent(value, bounds)} of the variance of the patches {where(layer)}",
            ))  # fmt: skip
    return made


def ranked(findings: list[Finding]) -> tuple[Finding, ...]:
    """The strongest first; of equal ones the first layer's."""
    return tuple(sorted(findings, key=lambda one: (-one.strength, one.layer, -1 if one.head is None else one.head)))
