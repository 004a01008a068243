"""claims.json as a result, and as the Markdown that the README shows: `aft-lens study claims-table`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from matplotlib.figure import Figure, SubFigure

from analyses.result import Result, Table, read_record
from analyses.study.figure import draw, page
from analyses.study.plan import Study
from analyses.study.record import Run
from analyses.study.tables import claim_table, configuration_table
from analyses.study.verdicts import Verdict, judge

NAME = "claims.json"


@dataclass(frozen=True)
class PaperClaims(Result):
    """Every run of a study, and the verdicts that follow from them."""

    name = Path(NAME).stem
    size = (9.0, 7.0)

    command: str
    """The command line that trained the last run."""
    hardware: Sequence[str]
    versions: Mapping[str, str]
    workers: int
    """Runs at a time; 0 trained in the process of the command."""
    study: Mapping[str, Any]
    """What was trained: fields of `Study`."""
    missing: Sequence[str]
    """Names of the runs that have not finished."""
    runs: Sequence[Run]

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "PaperClaims":
        """From the content of the JSON; claims in it are left, as they follow from the runs."""
        known = {key: value for key, value in record.items() if key not in ("claims", "runs")}
        return cls(**known, runs=[Run.read(run) for run in record["runs"]])

    def verdicts(self) -> list[Verdict]:
        """Every claim that can be judged."""
        return judge(self.runs)

    def record(self) -> dict[str, Any]:
        """Every run and verdict, with the command that trained."""
        made = {key: getattr(self, key) for key in ("command", "hardware", "versions", "workers", "study", "missing")}
        verdicts = [asdict(verdict) for verdict in self.verdicts()]
        return {**made, "claims": verdicts, "runs": [run.record() for run in self.runs]}

    def table(self) -> Table:
        """The verdicts, and what they were measured on."""
        table = claim_table(self.verdicts())
        return Table(table.columns, table.rows, note=self.made_on())

    def markdown(self) -> str:
        """The table of verdicts, the table of configurations and what they were measured on."""
        tables = (claim_table(self.verdicts()), configuration_table(self.runs))
        return "\n\n".join([*(table.markdown() for table in tables), self.made_on()])

    def made_on(self) -> str:
        """Seeds, hardware, PyTorch, how intervals are made, and the command."""
        return (
            f"Seeds 0 to {self.study['seeds'] - 1}, {self.study['epochs']} epochs each, on {', '.join(self.hardware)}, "
            f"{max(1, self.workers)} runs at a time sharing it; PyTorch {self.versions['torch']}. "
            "Intervals are over seeds: unpaired, with the larger of a configuration's own and the pooled standard "
            "deviation and Student's quantile; same-weights comparisons (test size, entropy, distance, agreement) are "
            "paired by seed. The paper's figures are points of ImageNet top-1, ours of the test set named above.\n"
            f"Made by: `{self.command}`"
        )

    def plot(self, figure: Figure | SubFigure) -> None:
        """Each claim's difference with its interval, beside where it holds."""
        draw(figure, self.verdicts())

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        return page(self.verdicts())


def run(study: Study, *, workers: int, budget: float, out: Path) -> None:
    """Print the tables of claims.json; FileNotFoundError with the next step without one."""
    found = read_record(out / NAME, "`aft-lens study paper-claims`")
    print(PaperClaims.read(found).markdown())
