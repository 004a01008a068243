"""Learning rates by validation accuracy, alike for every configuration: `aft-lens study tuning`."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from aft_lens.files import write_whole
from analyses.provenance import command_line
from analyses.result import dump
from analyses.study.plan import TUNED, TUNING_SEED, Study
from analyses.study.record import Run
from analyses.study.train import read_runs

METHOD = (
    "Each configuration is trained with four pairs of learning rate and position biases' rate over it (those without "
    f"position biases with four learning rates), seed {TUNING_SEED}, which nothing is judged by; the pair with the "
    "highest accuracy on the held-out tenth of the training images is taken. Test images are not looked at."
)


def run(study: Study, *, workers: int, budget: float, out: Path) -> None:
    """Write tuning.json from the runs of the plan "tuning" of the study's family; what it has beside them stays.

    Raises ValueError, with the next step, without any run.
    """
    runs = read_runs(replace(study, plan="tuning"))
    if not runs:
        raise ValueError(
            f"{study.runs} has no runs of the plan tuning; train them: `aft-lens study train --study.plan tuning`"
        )
    path = out / TUNED
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"chosen": {}, "made": {}}
    made = {
        "command": command_line(), "hardware": sorted({each.hardware for each in runs}), "versions": runs[0].versions,
        "epochs": runs[0].epochs,
    }  # fmt: skip
    record: dict[str, Any] = {
        "method": METHOD,
        "made": {**kept["made"], study.family: made},
        "chosen": {**kept["chosen"], study.family: {**kept["chosen"].get(study.family, {}), **chosen(runs)}},
    }
    write_whole(path, dump(record))
    for name, row in record["chosen"][study.family].items():
        print(f"{name:20} lr {row['lr']:g}, biases x {row['bias_lr_scale']:g}: {row['val_accuracy']:.2f} %")


def chosen(runs: list[Run]) -> dict[str, dict[str, Any]]:
    """The best pair of each configuration, with all that were tried."""
    tried: dict[str, list[dict[str, float]]] = {}
    for each in runs:
        optim = each.recipe["optim"]
        row = {"lr": optim["lr"], "bias_lr_scale": optim["bias_lr_scale"], "val_accuracy": each.val_accuracy}
        tried.setdefault(each.configuration, []).append(row)
    return {
        name: {**max(rows, key=lambda row: row["val_accuracy"]), "tried": rows} for name, rows in sorted(tried.items())
    }
