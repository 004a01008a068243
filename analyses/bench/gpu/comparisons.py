"""Ours over theirs: every ratio that `aft-lens bench gpu` publishes, with what each is aimed at and should reach."""

from dataclasses import dataclass
from typing import Any

from analyses.bench.gpu.record import PASSES, GPURecord, find


@dataclass(frozen=True)
class Entry:
    """One figure of the record: a column of an operator's row, or of a model's where `shape` is None."""

    name: str
    column: str
    shape: tuple[int, int, int] | None = None
    """Side of the grid, heads and window."""

    def read(self, measured: GPURecord) -> float | None:
        """Its value (medians of times, µs); None where it was not measured."""
        if self.shape is None:
            model = measured.models.get(self.name)
            return None if model is None else float(getattr(model, self.column))
        row = find(measured.operators, self.name, *self.shape)
        time = None if row is None else row.time(self.column)
        return None if time is None else time.median


@dataclass(frozen=True)
class Comparison:
    """Ours over theirs, and the ratios aimed at and asked for at least."""

    key: str
    words: str
    ours: Entry
    theirs: Entry
    aim: float
    least: float

    @property
    def larger_is_better(self) -> bool:
        """True of images/s, False of times and memory."""
        return self.ours.column in ("inference", "training")

    @property
    def asked(self) -> str:
        """The ratio that it should reach, e.g. ≤ 1.2."""
        return f"{'≥' if self.larger_is_better else '≤'} {self.least:g}"

    def met(self, ratio: float) -> bool:
        """Whether a ratio reaches `least`."""
        return ratio >= self.least if self.larger_is_better else ratio <= self.least


def _conv(heads: int, column: str, aim: float, least: float) -> Comparison:
    """AFT-conv over SDPA on 14 x 14."""
    key = f"conv_h{heads}_{'forward' if column == 'forward_us' else 'train'}"
    words = f"AFT-conv, {heads} heads, over SDPA, 14 × 14, {PASSES[column]}"
    return Comparison(
        key, words, Entry("aft_conv", column, (14, heads, 11)), Entry("sdpa", column, (14, 0, 0)), aim, least
    )


def _indexed(key: str, column: str, aim: float, least: float) -> Comparison:
    """Indexed AFT-conv over a copy of as many bytes."""
    words = f"indexed AFT-conv, 384 heads, over its copy floor, {PASSES[column]}"
    return Comparison(
        key, words, Entry("indexed", column, (14, 384, 11)), Entry("floor", column, (14, 384, 11)), aim, least
    )


def _fine(key: str, column: str, aim: float, least: float) -> Comparison:
    """AFT-conv over SDPA on 56 x 56."""
    words = f"AFT-conv, 32 heads, over SDPA, 56 × 56, {PASSES[column]}"
    return Comparison(
        key, words, Entry("aft_conv", column, (56, 32, 11)), Entry("sdpa", column, (56, 0, 0)), aim, least
    )


def _model(key: str, words: str, names: tuple[str, str], column: str, aim: float, least: float) -> Comparison:
    """A model over DeiT small."""
    ours, theirs = names
    what = {
        "inference": "inference (images/s)",
        "training": "training (images/s)",
        "peak_gib": "training (peak memory)",
    }
    return Comparison(key, f"{words}, {what[column]}", Entry(ours, column), Entry(theirs, column), aim, least)


_SMALL = ("aft_conv_small_11_32", "deit_small")
_FINE = ("aft_conv_small_11_32_56", "deit_small_56")
_MANY = ("aft_conv_small_11_384", "deit_small")
_OVER = "AFT-conv small {} over DeiT small"

COMPARISONS = (
    _conv(16, "forward_us", 0.6, 0.8),
    _conv(32, "forward_us", 0.6, 0.8),
    _conv(384, "forward_us", 0.8, 1.0),
    _conv(16, "train_us", 0.5, 0.65),
    _conv(32, "train_us", 0.5, 0.65),
    _conv(384, "train_us", 0.8, 1.1),
    Comparison(
        "conv_h32_forward_floor", "AFT-conv, 32 heads, over its copy floor, 14 × 14, forward",
        Entry("aft_conv", "forward_us", (14, 32, 11)), Entry("floor", "forward_us", (14, 32, 11)), 1.5, 2.0,
    ),
    _indexed("indexed_forward", "forward_us", 1.15, 1.3),
    _indexed("indexed_train", "train_us", 1.2, 1.4),
    _fine("conv_56_forward", "forward_us", 0.15, 0.2),
    _fine("conv_56_train", "train_us", 0.2, 0.27),
    Comparison(
        "per_token_growth", "AFT-conv, 32 heads, 112 × 112 over 28 × 28, forward at equal tokens",
        Entry("aft_conv", "forward_us", (112, 32, 11)), Entry("aft_conv", "forward_us", (28, 32, 11)), 1.0, 1.2,
    ),
    _model("model_inference", _OVER.format("11/32"), _SMALL, "inference", 1.02, 0.97),
    _model("model_train", _OVER.format("11/32"), _SMALL, "training", 1.08, 1.0),
    _model("model_h384_inference", _OVER.format("11/384"), _MANY, "inference", 1.0, 0.93),
    _model("model_h384_train", _OVER.format("11/384"), _MANY, "training", 1.1, 1.05),
    _model(
        "model_indexed_inference", _OVER.format("indexed"), ("aft_conv_small_indexed", "deit_small"),
        "inference", 1.02, 1.0,
    ),
    _model("model_56_inference", f"{_OVER.format('11/32')}, 56 × 56", _FINE, "inference", 2.4, 2.0),
    _model("model_56_train", f"{_OVER.format('11/32')}, 56 × 56", _FINE, "training", 2.4, 2.0),
    _model("model_train_memory", _OVER.format("11/32"), _SMALL, "peak_gib", 0.95, 1.0),
)  # fmt: skip
"""Every published ratio, in the order of the tables."""


def ratios(measured: GPURecord) -> dict[str, float]:
    """Ours over theirs: times of operators, images a second of models; those whose rows are missing are left out."""
    found = {}
    for comparison in COMPARISONS:
        ours, theirs = comparison.ours.read(measured), comparison.theirs.read(measured)
        if ours is not None and theirs is not None:
            found[comparison.key] = ours / theirs
    return found


def document(measured: GPURecord) -> dict[str, Any]:
    """The content of the JSON: the record with its ratios before its rows."""
    record = measured.record()
    rows = {key: record.pop(key) for key in ("operators", "models")}
    return {**record, "ratios": ratios(measured), **rows}
