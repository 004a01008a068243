"""causal.json: what `aft-lens bench causal` measured, in typed rows, and the ratios that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analyses.bench.gpu.record import OperatorRow

NAME = "causal"
"""Name of the published record and its figure, without an ending."""


@dataclass(frozen=True)
class StepRow:
    """Training steps of a decoder."""

    mixer: str
    batch: int
    length: int
    """Symbols a sequence."""
    milliseconds: float
    """A step: forward, backward and AdamW; median."""
    peak_gib: float
    """Peak memory of a step."""


@dataclass(frozen=True)
class GenerationRow:
    """Symbols that a decoder draws one after another."""

    mixer: str
    batch: int
    context: int
    """Symbols before those that were timed."""
    tokens_per_second: float
    """Of all sequences."""


@dataclass(frozen=True)
class CausalRecord:
    """Operators, decoders and generation on one GPU."""

    command: str
    hardware: str
    versions: Mapping[str, str]
    method: str
    attention: Mapping[str, str]
    """Backend that PyTorch picked for causal attention, by length."""
    seed: int = 0
    operators: Sequence[OperatorRow] = ()
    training: Sequence[StepRow] = ()
    generation: Sequence[GenerationRow] = ()

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "CausalRecord":
        """From the content of the JSON; ratios in it are left, as they follow from the rows."""
        known = {
            key: value for key, value in record.items() if key not in ("operators", "training", "generation", "ratios")
        }
        return cls(
            **known,
            operators=tuple(OperatorRow.read(row) for row in record["operators"]),
            training=tuple(StepRow(**row) for row in record["training"]),
            generation=tuple(GenerationRow(**row) for row in record["generation"]),
        )

    def record(self) -> dict[str, Any]:
        """The content of the JSON, ratios before rows."""
        made = {key: getattr(self, key) for key in ("command", "hardware", "versions", "seed", "method", "attention")}
        return {
            **made,
            "ratios": self.ratios(),
            "operators": [row.record() for row in self.operators],
            "training": [asdict(row) for row in self.training],
            "generation": [asdict(row) for row in self.generation],
        }

    def ratios(self) -> dict[str, float]:
        """Every ratio whose two sides are measured, by key."""
        return {one.key: ratio for one in COMPARISONS if (ratio := one.ratio(self)) is not None}

    def time(self, operator: str, length: int, column: str) -> float | None:
        """Median microseconds of an operator at a length; None where it is not measured."""
        for row in self.operators:
            if row.operator == operator and row.grid[1] == length:
                time = row.time(column)
                return None if time is None else time.median
        return None

    def step(self, mixer: str, length: int) -> float | None:
        """Milliseconds of a training step; None where it is not measured."""
        return next((row.milliseconds for row in self.training if (row.mixer, row.length) == (mixer, length)), None)

    def speed(self, mixer: str, context: int, batch: int) -> float | None:
        """Tokens a second; None where it is not measured."""
        wanted = (mixer, context, batch)
        return next((r.tokens_per_second for r in self.generation if (r.mixer, r.context, r.batch) == wanted), None)


@dataclass(frozen=True)
class Comparison:
    """Ours over theirs, and the ratios aimed at and asked for at least."""

    key: str
    words: str
    sides: tuple[tuple[str, ...], tuple[str, ...]]
    """Ours and theirs: what is read, and by which names."""
    aim: float
    least: float
    larger_is_better: bool = False

    def read(self, measured: CausalRecord, side: int) -> float | None:
        """The value of ours (0) or theirs (1); None where it was not measured."""
        what, name, length, *rest = self.sides[side]
        if what == "step":
            return measured.step(name, int(length))
        if what == "speed":
            return measured.speed(name, int(length), int(rest[0]))
        return measured.time(name, int(length), what)

    def ratio(self, measured: CausalRecord) -> float | None:
        """Ours over theirs."""
        ours, theirs = self.read(measured, 0), self.read(measured, 1)
        return None if ours is None or theirs is None else ours / theirs

    def met(self, ratio: float) -> bool:
        """Whether a ratio reaches `least`."""
        return ratio >= self.least if self.larger_is_better else ratio <= self.least


def _over_attention(name: str, length: int, column: str, aim: float, least: float) -> Comparison:
    passes = {"forward_us": ("forward", "forward"), "train_us": ("train", "forward + backward")}[column]
    key = f"{name}_{passes[0]}_{length}"
    words = f"AFT-{name} over attention, T = {length:,}, {passes[1]}"
    return Comparison(
        key, words, ((column, f"{name}_causal", str(length)), (column, "sdpa_causal", str(length))), aim, least
    )


COMPARISONS = (
    _over_attention("local", 1024, "forward_us", 0.9, 1.5),
    _over_attention("local", 1024, "train_us", 0.9, 1.3),
    _over_attention("local", 4096, "forward_us", 0.35, 0.6),
    _over_attention("local", 4096, "train_us", 0.35, 0.5),
    Comparison(
        "simple_forward_floor", "AFT-simple over a copy of Q, K, V and Y, T = 1,024, forward",
        (("forward_us", "simple_causal", "1024"), ("forward_us", "copy", "1024")), 1.5, 2.0,
    ),
    _over_attention("simple", 1024, "train_us", 0.5, 0.8),
    Comparison(
        "decoder_train_4096", "a decoder of AFT-local over one of attention, T = 4,096, training step",
        (("step", "aft_local", "4096"), ("step", "attention", "4096")), 0.8, 1.0,
    ),
    Comparison(
        "generation_4096", "tokens/s of AFT-local over attention with a cache, context 4,096, batch 64",
        (("speed", "aft_local", "4096", "64"), ("speed", "attention", "4096", "64")), 5.0, 2.0, True,
    ),
)  # fmt: skip
"""Every published ratio, in the order of the tables."""
