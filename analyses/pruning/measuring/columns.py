"""Rungs as lines of CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aft_lens.files import write_whole


def write_csv(rows: Sequence[Any], path: Path) -> Path:
    """Write records (dataclasses) as CSV, by `flat`."""
    lines = [flat(asdict(row)) for row in rows]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(name for line in lines for name in line)))
    writer.writeheader()
    writer.writerows(lines)
    return write_whole(path, text.getvalue())


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row's numbers and words by column: an interval as _low and _high, latencies by model, device and batch."""
    line: dict[str, Any] = {}
    for name, value in row.items():
        if name.endswith("_interval"):
            line[name.replace("interval", "low")], line[name.replace("interval", "high")] = value or (None, None)
        elif name == "latencies":
            for model, times in (value if isinstance(value, Mapping) else {"": value}).items():
                for each in times:
                    where = "_".join(filter(None, (model, "cpu" if each["device"] == "cpu" else "gpu")))
                    for number in ("mean_ms", "sd_ms", "median_ms", "low_ms", "high_ms"):
                        line[f"{where}_batch_{each['batch']}_{number}"] = each.get(number)
        elif not isinstance(value, (list, tuple, Mapping)):
            line[name] = value
    return line
