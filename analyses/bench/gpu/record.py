"""gpu_h100.json: what `aft-lens bench gpu` measured, in typed rows, and what its operators and passes are called."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

NAME = "gpu_h100"
"""Name of the published record and its figure, without an ending."""
MODEL = re.compile(r"\b[A-Z]{1,2}\d{2,4}[A-Z]?\b")
"""What a GPU of a data centre is called, in its name."""
WORDS = {
    "copy": "copy",
    "floor": "copy of AFT-conv's bytes",
    "sdpa": "SDPA",
    "sdpa_flash": "SDPA by flash",
    "sdpa_cudnn": "SDPA by cuDNN",
    "textbook": "textbook attention",
    "linear": "linear attention",
    "aft_conv": "AFT-conv",
    "prepared": "AFT-conv, bias prepared",
    "indexed": "indexed AFT-conv",
    "eq6": "Eq. 6 by convolutions",
    "depthwise": "Eq. 6 by one convolution, channels last",
    "masked": "AFT-conv by masked SDPA",
    "flex": "AFT-conv by FlexAttention",
    "sdpa_causal": "causal SDPA",
    "simple": "AFT-simple",
    "simple_causal": "causal AFT-simple",
    "simple_causal_torch": "causal AFT-simple in PyTorch",
    "local_causal": "causal AFT-local",
    "local_causal_torch": "causal AFT-local in PyTorch",
}
"""What the rows' operators are called in tables and figures, in the order of the tables."""
PASSES = {"forward_us": "forward", "train_us": "forward + backward"}
"""Columns of an operator's times."""


def record_name(hardware: str) -> str:
    """Name of the record of a GPU, without an ending: gpu_h200 of an NVIDIA H200, gpu_rtx_4090 of that."""
    model = MODEL.search(hardware)
    word = model[0] if model else re.sub("(NVIDIA|GeForce|AMD) ", "", hardware)
    return "gpu_" + re.sub(r"\W+", "_", word).strip("_").lower()


@dataclass(frozen=True)
class Time:
    """Microseconds a call over many."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""


@dataclass(frozen=True)
class OperatorRow:
    """An operator at a shape."""

    operator: str
    """A key of WORDS."""
    batch: int
    grid: tuple[int, int]
    """Rows and columns; one row for operators on a line."""
    heads: int
    """Of the position bias; 0 without one."""
    window: int
    """Side of the position bias; 0 without one."""
    forward_us: Time
    train_us: Time | None = None
    """Forward and backward; None where it is not measured."""
    error: float | None = None
    """Relative distance to the float64 reference; None where it is not checked."""
    peak_mib: float | None = None
    """Peak memory of forward and backward above the inputs; None where it is not measured."""
    backend: str | None = None
    """Of attention, that PyTorch picks, e.g. cudnn_attention, and the one it trains by where that is another; None
    where nothing is to be picked."""

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> "OperatorRow":
        """From a row such as `record` gives."""
        times = {column: Time(**row[column]) for column in PASSES if row.get(column)}
        return cls(**{**row, **times, "grid": tuple(row["grid"])})

    def record(self) -> dict[str, Any]:
        """As JSON has it: what was not measured is left out, an error that was not checked is null."""
        row = asdict(self)
        shape = {key: row[key] for key in ("operator", "batch", "grid", "heads", "window", "error", "forward_us")}
        return shape | {key: row[key] for key in ("peak_mib", "train_us", "backend") if row[key] is not None}

    def time(self, column: str) -> Time | None:
        """The pass of a column of PASSES; None where it is not measured."""
        return self.forward_us if column == "forward_us" else self.train_us


@dataclass(frozen=True)
class ModelRow:
    """A whole model."""

    inference: float
    """Images a second."""
    training: float
    """Images a second of training steps."""
    peak_gib: float
    """Peak memory of a training step."""


@dataclass(frozen=True)
class GPURecord:
    """Operators and models on one GPU."""

    command: str
    hardware: str
    versions: Mapping[str, str]
    method: str
    seed: int = 0
    operators: Sequence[OperatorRow] = ()
    models: Mapping[str, ModelRow] = field(default_factory=dict)
    """By name, in the order in which they were measured."""
    left_out: Sequence[str] = ()
    """Contestants that this GPU or PyTorch does not run, with what they said."""

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "GPURecord":
        """From the content of the JSON; ratios in it are left, as they follow from the rows."""
        known = {key: value for key, value in record.items() if key not in ("operators", "models", "ratios")}
        operators = tuple(OperatorRow.read(row) for row in record["operators"])
        return cls(**known, operators=operators, models={k: ModelRow(**row) for k, row in record["models"].items()})

    def record(self) -> dict[str, Any]:
        """The content of the JSON but for the ratios."""
        rows = [row.record() for row in self.operators]
        made = {key: getattr(self, key) for key in ("command", "hardware", "versions", "seed", "method")}
        left_out = {"left_out": list(self.left_out)} if self.left_out else {}
        models = {name: asdict(row) for name, row in self.models.items()}
        return {**made, **left_out, "operators": rows, "models": models}


def find(rows: Iterable[OperatorRow], operator: str, side: int, heads: int = 0, window: int = 0) -> OperatorRow | None:
    """The row of an operator on a square grid; None where it was not measured."""
    for row in rows:
        if (row.operator, row.grid, row.heads, row.window) == (operator, (side, side), heads, window):
            return row
    return None
