"""autoregression.json from the runs, by criteria that were set before them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aft_lens.files import write_whole
from analyses.autoregression import criteria
from analyses.autoregression.plan import MEASURED_IMAGES, PIXELS, RATE, STEPS, TOKENS, Study
from analyses.autoregression.result import Autoregression
from analyses.autoregression.speed import read_speeds
from analyses.autoregression.train import read_rows
from analyses.cells import Crew
from analyses.provenance import command_line
from analyses.result import dump
from analyses.study.judge import registration

FILE = "autoregression.json"


def run(study: Study, *, crew: Crew, out: Path) -> None:
    """Print both tables and write the JSON.

    Raises ValueError, with the next step, without any run, with criteria that are not committed, or where a run began
    before they were.
    """
    rows, missing = read_rows(study)
    if not rows:
        raise ValueError(f"{study.runs} has no runs; train them: `aft-lens autoregression train`")
    commit, when = registration(Path(criteria.__file__))
    early = [row for row in rows if datetime.fromisoformat(row["started"]) < when.astimezone(UTC)]
    if early:
        raise ValueError(f"{len(early)} runs began before the criteria of commit {commit[:12]} were set; train anew")
    result = Autoregression(rows, missing, _words(study, rows), commit, read_speeds(study.runs))
    path = write_whole(out / FILE, dump({"command": command_line(), **result.record()}))
    print(f"{result}\n\n{result.claims().text()}\nwrote {path}")


def _words(study: Study, rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """By task, what the runs were trained on and measured on."""
    words = {}
    for task, name in (("pixels", study.images), ("text", study.text.rpartition("/")[2])):
        symbols = sorted({row["train_symbols"] for row in rows if row["task"] == task})
        counts = [f"{count // PIXELS.length:,} training images" if task == "pixels" else f"{count:,} training symbols"
                  for count in symbols]  # fmt: skip
        sizes = f"{STEPS[task]} steps of {TOKENS[task]:,} symbols, learning rate {RATE:g}"
        measured = {
            "pixels": f"test and training bits on the first {MEASURED_IMAGES:,} images of each",
            "text": "test bits on its last 5 %",
        }
        words[task] = f"{name} ({' and '.join(counts) or 'not trained'}), {sizes}; {measured[task]}"
    return words
