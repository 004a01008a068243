"""python -m robustness (from tests/): the long run, which publishes analyses/results/robustness.json."""

import tempfile
from pathlib import Path

from jsonargparse import auto_cli

from aft_lens.files import write_whole
from analyses.provenance import RESULTS, commanded, made_by
from analyses.result import dump
from robustness import inputs, kills


def command(kills_of: int = 200, inputs_of: int = 2500, seed: int = 0, out: Path = RESULTS / "robustness.json") -> None:
    """Attack and write what came of it.

    Args:
        kills_of: Kills of training runs.
        inputs_of: Mutated inputs of each of the four kinds.
        seed: Of every draw.
        out: The record.
    """
    words = ("make", "robustness") if (kills_of, inputs_of) == (200, 2500) else (
        "python", "-m", "robustness", f"--kills_of={kills_of}", f"--inputs_of={inputs_of}"
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder, commanded(*words):
        found = inputs.attack(inputs_of, Path(folder), seed)
        found["kill -9 while training"] = {"kills": kills_of, **kills.attack(kills_of, Path(folder) / "kills", seed)}
        outcomes = [{"kind": kind, **counts} for kind, counts in found.items()]
        write_whole(out, dump(made_by() | {"seed": seed, "outcomes": outcomes}))
    for row in outcomes:
        print(row)


if __name__ == "__main__":
    auto_cli(command)
