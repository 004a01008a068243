"""`aft-lens bench generation`: tokens a second by mixer, batch and context, on the GPU or else the CPU."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from matplotlib.figure import Figure, SubFigure

from aft_lens.checkpoint import commit
from analyses.bench.generation.measure import REPEATS, SECONDS, SHAPE, Speed, step_speed
from analyses.provenance import RESULTS, environment
from analyses.result import Result, Table
from analyses.theme import axes, layout

MIXERS = {"aft_local": "AFT-local, s 32", "aft_simple": "AFT-simple", "attention": "Transformer with a KV cache"}
BATCHES, CONTEXTS = (1, 64), (256, 1024, 4096, 16384)
METHOD = (
    f"Random weights and a random state of the context's size. Medians of {REPEATS} times: on a GPU of about "
    f"{SECONDS:g} s of steps, each a captured graph with the small operations of an AFT's state compiled, on a CPU of "
    "a single step. Attention runs over exactly the keys that there are, in the fused form that PyTorch picks."
)
CPU_SYMBOLS = 2**16
"""Most symbols (batch times context) that a CPU is measured at: caches grow with them."""


@dataclass(frozen=True)
class GenerationBench(Result):
    """Steps of decoders with random weights of one shape."""

    name = "generation"
    size = (9.0, 3.6)

    speeds: Sequence[Speed]
    dtype: str
    environment: Mapping[str, Any]

    def record(self) -> dict[str, Any]:
        """Every speed, and AFT's over the Transformer's."""
        return {
            **self.environment, "commit": commit(), "method": METHOD, "dtype": self.dtype,
            "shape": {key: getattr(SHAPE, key) for key in ("depth", "embed_dim", "num_heads", "window_size")},
            "ratios": [
                {"mixer": each.mixer, "batch": each.batch, "context": each.context, "ratio": ratio}
                for each in self.speeds if (ratio := self.ratio(each)) is not None and each.mixer != "attention"
            ],
            "speeds": [asdict(each) for each in self.speeds],
        }  # fmt: skip

    def ratio(self, speed: Speed) -> float | None:
        """Tokens a second over the Transformer's at the same batch and context; None where that was not measured."""
        same = {each.mixer: each for each in self.speeds if (each.batch, each.context) == (speed.batch, speed.context)}
        return speed.tokens_per_second / same["attention"].tokens_per_second if "attention" in same else None

    def table(self) -> Table:
        """A mixer, batch and context a row."""
        rows = [
            [MIXERS[each.mixer], str(each.batch), f"{each.context:,}", f"{each.milliseconds:.3f}",
             f"{each.tokens_per_second:,.0f}", "–" if (ratio := self.ratio(each)) is None else f"{ratio:.2f}",
             f"{each.state_mib:,.1f}"]
            for each in self.speeds
        ]  # fmt: skip
        columns = ("decoder", "batch", "context", "ms / step", "tokens/s", "over the Transformer", "state, MiB")
        title = f"{SHAPE.depth} blocks, d = {SHAPE.embed_dim}, {self.dtype}, on {self.environment['hardware']}"
        return Table(columns, rows, title, words=1)

    def plot(self, figure: Figure | SubFigure) -> None:
        """Tokens a second against the context, a batch a panel."""
        for axis, batch in zip(figure.subplots(1, len(BATCHES)), BATCHES, strict=True):
            for mixer, words in MIXERS.items():
                found = [each for each in self.speeds if (each.mixer, each.batch) == (mixer, batch)]
                axis.loglog([s.context for s in found], [s.tokens_per_second for s in found], "o-", label=words, ms=4)
            axis.set_title(f"batch {batch}", fontsize=9)
            axis.set_xlabel("context, symbols")
            axis.set_ylabel("tokens / s")
        axis.legend(fontsize=7)

    def interactive(self) -> go.Figure:
        """The same with the values under the pointer."""
        figure = go.Figure()
        for mixer, words in MIXERS.items():
            for batch in BATCHES:
                found = [each for each in self.speeds if (each.mixer, each.batch) == (mixer, batch)]
                figure.add_scatter(
                    x=[each.context for each in found], y=[each.tokens_per_second for each in found],
                    name=f"{words}, batch {batch}", mode="lines+markers",
                )  # fmt: skip
        figure.update_xaxes(type="log", title="context, symbols")
        figure.update_yaxes(type="log", title="tokens / s")
        return layout(axes(figure), height=420)


def command(out: Path | None, quick: bool) -> None:
    """Measure, print and save generation.json with its figure; `generation_cpu.json` where there is no GPU."""
    on_gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    cases = [(batch, context) for batch in BATCHES for context in CONTEXTS if on_gpu or batch * context <= CPU_SYMBOLS]
    speeds = [
        step_speed(mixer, batch=batch, context=context, device=device, dtype=dtype)
        for batch, context in (cases[:1] if quick else cases) for mixer in MIXERS
    ]  # fmt: skip
    result = GenerationBench(speeds, str(dtype).removeprefix("torch."), environment(device))
    print(result)
    folder, stem = out or RESULTS, result.name if on_gpu else f"{result.name}_cpu"
    for path in (result.write_record(folder / f"{stem}.json"), *result.write_figures(folder, stem)):
        print(f"wrote {path}")
