"""multi_gpu.json as the Markdown that the README shows: `aft-lens bench multi_gpu_table`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analyses.bench.gpu_table import NONE, table
from analyses.bench.multi_gpu import NAME
from analyses.provenance import RESULTS
from analyses.study.table import mean_and_deviation


def command(out: Path | None = None) -> None:
    """Print the table of multi_gpu.json; FileNotFoundError with the next step without one."""
    path = (out or RESULTS) / NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; make it with `aft-lens bench multi_gpu` on two GPUs or more")
    print(markdown(json.loads(path.read_text())))


def markdown(record: Mapping[str, Any]) -> str:
    """Speed, memory and accuracy by number of GPUs, what became of the resumed run, and what it was measured on."""
    header = (
        "GPUs",
        "Images/s",
        "Scaling efficiency",
        "Peak, MiB a GPU",
        "Test accuracy, % (mean ± sd)",
        "Difference to 1 GPU [95 %], points",
    )
    rows = [
        [
            str(row["gpus"]),
            f"{row['images_per_second']:,.0f}",
            f"{row['scaling_efficiency']:.3f}",
            f"{row['peak_memory_mib']:,.0f}",
            mean_and_deviation(row["test_accuracy"]) if row.get("test_accuracy") else NONE,
            f"[{row['difference'][0]:+.2f}, {row['difference'][1]:+.2f}]" if row.get("difference") else NONE,
        ]
        for row in record["rows"]
    ]
    notes = f"{record['method']} On {record['hardware']}, PyTorch {record['versions']['torch']}, seeds "
    notes += f"{', '.join(map(str, record['seeds']))}. Made by: `{record['command']}`"
    return "\n\n".join([table(header, rows, words=0), *_resumed(record.get("resumed")), notes])


def _resumed(found: Mapping[str, Any] | None) -> list[str]:
    """A sentence of the run that went on with fewer GPUs; nothing where a run was cut short before it."""
    if found is None:
        return []
    return [
        f"Stopped on {found['gpus_before']} GPUs after {found['epochs_before']} epochs and resumed on "
        f"{found['gpus_after']}: {found['epochs']} epochs, test accuracy {found['test_accuracy']:.2f} %."
    ]
