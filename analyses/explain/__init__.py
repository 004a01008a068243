"""Does position explain a head? The fraction of its attention, and what the model loses without the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from aft_lens.checkpoint import CONFIG, checkpoint_folder, read_config
from aft_lens.data import load_data
from analyses.cells import Cell, Crew, run_cells
from analyses.command import known_data, report, report_folder
from analyses.explain.causal import Outcome
from analyses.explain.explanation import Explanation
from analyses.explain.measure import Edited, explain, explanation
from analyses.explain.opened import Setup, explained, measured, open_reader
from analyses.explain.plan import Plan, plan_for
from analyses.store import Store, fingerprint

__all__ = ["Explanation", "Plan", "command", "explain", "open_reader", "plan_for"]


def command(
    source: str,
    data: str | None = None,
    images: int = 256,
    pretrained: bool = True,
    window: int | None = None,
    layers: list[int] | None = None,
    labels: Literal["data", "model"] = "data",
    probe: int = 0,
    single: bool = True,
    edits: list[str] | None = None,
    counts: list[int] | None = None,
    workers: int = 0,
    ray: str = "",
    gpus: float = 0.0,
    budget: float = 0.0,
    bfloat16: bool = False,
    root: str | None = None,
    device: str = "cpu",
    seed: int = 0,
    store: Path | None = None,
    out: Path | None = None,
) -> None:
    """Print how much of each head position explains and what replacing heads costs, and save all with figures.

    Args:
        source: Folder of a ViT or AFT-conv, the name of one that ships or was trained, timm:NAME, torchvision:NAME or
            hf:NAME_OR_PATH.
        data: Data set whose training images give maps and test images accuracies; the model's own if left out.
        images: Training images, and test images, at most.
        pretrained: False takes the model's architecture with random weights, as a control.
        window: Side of the window-only replacement, odd, in patches; about half the grid's side if left out.
        layers: Layers whose heads are edited, e.g. [0,5,11]; all if left out.
        labels: data, or model for agreement with the intact model where the data has other classes.
        probe: Training images on whose frozen features a linear probe is fitted (logistic regression), for a model
            without a classifier of the data's classes; 0 takes the model's own.
        single: False leaves out the edits of one head at a time, which take nearly all of the time.
        edits: Edits to make, e.g. [map,offset]: map, uniform, other, window, offset; all if left out.
        counts: Heads edited at once, e.g. [9,36]; twelve numbers up to all if left out.
        workers: Processes that share the work; 0 does it in this one, or with --ray in one for each processor.
        ray: Address of a Ray cluster whose machines share the work: auto, local or HOST:PORT (needs the ray extra).
        gpus: GPUs of each of its workers, e.g. 0.25 for four on one.
        budget: Seconds for each list of models, to go on with the same command later; 0 is no limit.
        bfloat16: Measure accuracies under autocast to bfloat16, two to four times as fast where a processor has it.
        root: Folder of downloaded data; data/ if left out.
        device: cpu, cuda or cuda:N.
        seed: Of random weights.
        store: Folder of what is measured already; OUT/explain-cells if left out.
        out: Folder for explain.json, .png, .svg and .html; if left out reports/NAME, or reports/NAME-random.
    """
    reader = open_reader(source, pretrained=pretrained, device=device, seed=seed)
    advice = " (and --labels model or --probe 1000 if its classes differ)"
    name, _ = known_data(source, data or reader.data, reader.preprocessing, advice)
    folder = checkpoint_folder(source)
    if labels == "data" and not probe and (folder / CONFIG).is_file():
        load_data(name, root=root).check_fits(read_config(folder).data)
    if probe and labels == "model":
        raise ValueError("probe needs the data's labels; leave out --labels model")
    plan = plan_for(
        reader,
        window=window,
        layers=layers,
        edits=edits,
        single=single,
        counts=counts,
        labels=labels,
        data=name,
        bfloat16=bfloat16,
    )
    out = out or report_folder(source, *([] if pretrained else ["random"]))
    setup = Setup(source, name, images, images, probe, labels, pretrained, bfloat16, root, device, seed).of(reader)
    place = store or out / "explain-cells"
    at_hand = explained(setup, place)
    cells = Sent(
        partial(measured, setup=setup, plan=plan, folder=place), fingerprint(setup, plan.window), Store(place),
        Crew(workers, ray, gpus, budget),
    )  # fmt: skip
    report(explanation(at_hand.reader, at_hand.positions, plan, cells.outcomes), out)


@dataclass(frozen=True)
class Sent:
    """Edited models as cells, each measured once."""

    measure: Callable[[Edited], Outcome]
    mark: str
    """Fingerprint of all that outcomes depend on beside the edits."""
    store: Store
    crew: Crew

    def outcomes(self, models: Sequence[Edited], words: str) -> list[Outcome]:
        """What each makes of its images, equal ones measured once; raises as `Outcome.check_whole` of cells does."""
        different = {model.name: model for model in models}
        cells = [Cell(name, fingerprint(self.mark, name), partial(self.measure, model), str(model.calibration))
                 for name, model in different.items()]  # fmt: skip
        found = run_cells(cells, self.store, self.crew, words=words)
        found.check_whole(words, self.store)
        return [Outcome.read(found.rows[model.name]) for model in models]
