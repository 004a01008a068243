"""Runs and the verdicts that follow from them: claims.json, controls.json and long_runs.json, and their Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.cells import Crew
from analyses.result import Result, Table, read_record, record_path
from analyses.study.claims import OURS, PAPER, Claim
from analyses.study.figure import draw, page
from analyses.study.plan import Study
from analyses.study.record import Run
from analyses.study.tables import claim_table, configuration_table
from analyses.study.verdicts import DRAWS, UNTESTED, Verdict, judge

FILES = {"claims": "claims.json", "sparsity": "controls.json", "long": "long_runs.json"}
"""By plan."""
CLAIMS: Mapping[str, tuple[Claim, ...]] = {"claims": PAPER, "sparsity": OURS, "long": ()}
"""By plan; the models that ship are shown and judge nothing."""


@dataclass(frozen=True)
class Judged(Result):
    """Every run of a plan, and the verdicts that follow from them."""

    size = (9.0, 7.0)

    plan: str
    command: str
    """The command line that wrote it."""
    preregistration: str
    """The commit that last changed the criteria, before the first run began."""
    hardware: Sequence[str]
    versions: Mapping[str, str]
    missing: Sequence[str]
    """Names of the runs that have not finished, of the data sets that any run is of."""
    runs: Sequence[Run]

    @property
    def name(self) -> str:  # type: ignore[override]
        """Of its files."""
        return Path(FILES[self.plan]).stem

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "Judged":
        """From the content of the JSON; claims in it are left, as they follow from the runs."""
        known = {key: value for key, value in record.items() if key not in ("claims", "runs")}
        return cls(**known, runs=[Run.read(run) for run in record["runs"]])

    def verdicts(self) -> list[Verdict]:
        """Every claim, data set by data set."""
        return judge(self.runs, CLAIMS[self.plan])

    def record(self) -> dict[str, Any]:
        """Every run and verdict, with the command that wrote them."""
        keys = ("plan", "command", "preregistration", "hardware", "versions", "missing")
        made = {key: getattr(self, key) for key in keys}
        verdicts = [asdict(verdict) for verdict in self.verdicts()]
        return {**made, "claims": verdicts, "runs": [run.record() for run in self.runs]}

    def table(self) -> Table:
        """The verdicts, or the configurations where nothing is claimed, and what they were measured on."""
        table = claim_table(self.verdicts()) if CLAIMS[self.plan] else configuration_table(self.runs)
        return Table(table.columns, table.rows, note=self.made_on())

    def markdown(self) -> str:
        """The table of verdicts, the table of configurations and what they were measured on."""
        claims = [claim_table(self.verdicts())] if CLAIMS[self.plan] else []
        tables = [*claims, configuration_table(self.runs)]
        return "\n\n".join([*(table.markdown() for table in tables), self.made_on()])

    def made_on(self) -> str:
        """Seeds, hardware, PyTorch, how verdicts are made, and the command."""
        left = f"; {len(self.missing)} runs of the plan are not made yet" if self.missing else ""
        where = f"On {', '.join(self.hardware)}, PyTorch {self.versions['torch']}{left}"
        if not CLAIMS[self.plan]:
            return f"{where}.\nMade by: `{self.command}`"
        return (
            f"{where}; criteria as of commit {self.preregistration[:12]}. Accuracy: a bootstrap of {DRAWS:,} draws "
            "over test images and seeds, the variance between seeds pooled over all configurations; other metrics: "
            "Student's t of differences paired by seed. Intervals are 95 % and not adjusted; verdicts take p < 0.05 "
            f"after Holm's adjustment for all tested claims of the table.\nMade by: `{self.command}`"
        )

    def plot(self, figure: Figure | SubFigure) -> None:
        """Each tested claim's difference with its interval, beside where it holds."""
        draw(figure, [verdict for verdict in self.verdicts() if verdict.verdict != UNTESTED])

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        return page([verdict for verdict in self.verdicts() if verdict.verdict != UNTESTED])


def run(study: Study, *, crew: Crew, out: Path) -> None:
    """Print the tables of what was judged or trained for long; FileNotFoundError, with the next step, without any."""
    there = [name for name in FILES.values() if record_path(out / name).is_file()] or [FILES["claims"]]
    tables = [Judged.read(read_record(out / name, "`aft-lens study judge`")).markdown() for name in there]
    print("\n\n".join(tables))
