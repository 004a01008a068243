"""Learning rates by validation accuracy, alike for every configuration: `aft-lens study tuning`."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aft_lens.files import write_whole
from analyses.cells import Crew
from analyses.provenance import command_line
from analyses.result import dump
from analyses.study.plan import PLAIN_RATES, RATES, TUNED, TUNING_SEED, Study, tasks
from analyses.study.record import Run
from analyses.study.train import read_runs

METHOD = (
    f"Each configuration is trained with {len(RATES)} pairs of learning rate and position biases' rate over it (those "
    f"without position biases with {len(PLAIN_RATES)} learning rates), seed {TUNING_SEED}, which nothing is judged by; "
    "the pair with the highest accuracy on the held-out tenth of the training images is taken. Test images are not "
    "looked at."
)


def run(study: Study, *, crew: Crew, out: Path) -> None:
    """Write tuning.json from the runs of the plan "tuning" of the study's family; what it has beside them stays.

    A configuration is chosen for once all of its rates are tried: fewer would be another budget than the others'.
    Raises ValueError, with the next step, without any.
    """
    planned = Counter(task.configuration.name for task in tasks(replace(study, plan="tuning")))
    runs = read_runs(replace(study, plan="tuning"))
    found = chosen(runs)
    partly = {name: len(row["tried"]) for name, row in found.items() if len(row["tried"]) < planned[name]}
    for name, count in partly.items():
        print(f"{name}: {count} of {planned[name]} pairs are tried, none is chosen yet")
    found = {name: row for name, row in found.items() if name not in partly}
    if not found:
        raise ValueError(
            f"{study.runs} has no runs of the plan tuning for all rates of a configuration; train them: `aft-lens "
            f"study train --study.plan tuning --study.family {study.family}`"
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
        "chosen": {**kept["chosen"], study.family: {**kept["chosen"].get(study.family, {}), **found}},
    }
    write_whole(path, dump(record))
    for name, row in record["chosen"][study.family].items():
        edge = ", on the edge of what was tried: " + " and ".join(edges(row)) if edges(row) else ""
        print(f"{name:20} lr {row['lr']:g}, biases x {row['bias_lr_scale']:g}: {row['val_accuracy']:.2f} %{edge}")


def edges(row: Mapping[str, Any]) -> list[str]:
    """Which of a chosen pair's two rates is the lowest or highest that was tried, where several were."""
    words = {"lr": "learning rate", "bias_lr_scale": "biases' rate"}
    tried = {key: sorted({each[key] for each in row["tried"]}) for key in words}
    return [words[key] for key, rates in tried.items() if len(rates) > 1 and row[key] in (rates[0], rates[-1])]


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
