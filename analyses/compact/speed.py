"""Latency of models side by side: in float32, and on a GPU in bfloat16 and as CUDA graphs, without launches."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aft_lens.progress import progress
from analyses.pruning.measuring.cost import Latency, latencies

WARM = 3
"""Passes before a graph is captured."""


@dataclass(frozen=True)
class Time:
    """One model's latency under one condition."""

    precision: str
    """"float32" or "bfloat16"."""
    graph: bool
    """True: replayed as a CUDA graph; False: launched operation by operation."""
    latency: Latency

    @property
    def condition(self) -> str:
        """In words, without the model."""
        return f"batch {self.latency.batch}, {self.precision}{', CUDA graph' if self.graph else ''}"


class Graphed(nn.Module):
    """A model captured as a CUDA graph for one shape of input."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.model, self.images = model, images.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                model(self.images)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.output = model(self.images)

    def forward(self, images: Tensor) -> Tensor:
        """Replay; the output is overwritten by the next call."""
        self.images.copy_(images)
        self.graph.replay()
        return self.output


@torch.inference_mode()
def times(
    models: Mapping[str, nn.Module], images: Tensor, batch_sizes: Sequence[int], seconds: float
) -> dict[str, tuple[Time, ...]]:
    """Latencies by model, all on the device of `images` (`b c y x`), which are repeated to each batch size.

    Models take turns, so that a busy moment falls on all alike; each has about `seconds` for each condition.
    """
    found: dict[str, list[Time]] = {name: [] for name in models}
    precisions = [torch.float32, torch.bfloat16] if images.is_cuda else [torch.float32]
    for precision in precisions:
        own = [model if precision == torch.float32 else copy.deepcopy(model).to(precision) for model in models.values()]
        for batch in progress(batch_sizes, f"latencies in {str(precision).removeprefix('torch.')}"):
            given = images.to(precision).repeat(-(-batch // len(images)), 1, 1, 1)[:batch]
            for graph in (False, True) if images.is_cuda else (False,):
                runs = [Graphed(model, given) for model in own] if graph else own
                for name, latency in zip(models, latencies(runs, given, batch=batch, seconds=seconds)):
                    found[name].append(Time(str(precision).removeprefix("torch."), graph, latency))
    return {name: tuple(each) for name, each in found.items()}
