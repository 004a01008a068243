"""One step of a decoder that has read a context already: its time, tokens a second and the bytes of its state."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from aft_lens.layers.memory import CacheMemory, MatrixMemory, Memory, Place, SumMemory, WindowMemory
from aft_lens.models import Decoder, DecoderConfig

REPEATS = 7
"""Medians are of so many timings."""
SECONDS = 0.05
"""A timing goes on for about so long."""
SHAPE = DecoderConfig(embed_dim=384, depth=12, num_heads=6, window_size=32, dropout=0.0)
"""What is compared: 12 blocks of d = 384, windows of 32, six heads of attention."""


@dataclass(frozen=True)
class Speed:
    """One decoder at one batch and context."""

    mixer: str
    batch: int
    context: int
    """Symbols that were read before the step that is timed, itself included."""
    milliseconds: float
    """Median of a step."""
    tokens_per_second: float
    state_mib: float
    """Bytes of the state of all blocks."""


def step_speed(
    mixer: str,
    *,
    batch: int,
    context: int,
    shape: DecoderConfig = SHAPE,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Speed:
    """Time the step at position `context` of a decoder with random weights and a random state.

    On CUDA the step is a captured graph, with the small operations of an AFT's state compiled; attention runs over
    exactly the keys that there are, in the fused form that PyTorch picks. Raises ValueError for a mixer without steps.
    """
    where = torch.device(device)
    config = DecoderConfig(**{**vars(shape), "mixer": mixer, "length": context, "grid": (), "name": ""})
    with torch.device(where):
        model = Decoder(config).to(dtype).eval()
    memories = model.begin(batch)
    for memory in memories:
        _fill(memory)
        memory.fused = where.type == "cuda"
    symbols = torch.zeros(batch, dtype=torch.long, device=where)
    place = Place(torch.tensor([context - 1], device=where), context)

    @torch.no_grad()
    def step() -> None:
        model.step(symbols, memories, place)

    seconds = _timed(_captured(step)) if where.type == "cuda" else _clocked(step)
    size = sum(tensor.numel() * tensor.element_size() for memory in memories for tensor in _tensors(memory))
    return Speed(mixer, batch, context, 1e3 * seconds, batch / seconds, size / 2**20)


def generation_ratio(
    *, batch: int = 64, context: int = 4096, mixer: str = "aft_local", device: torch.device | str = "cuda",
    dtype: torch.dtype = torch.bfloat16, shape: DecoderConfig = SHAPE,
) -> tuple[float, Speed, Speed]:  # fmt: skip
    """Tokens a second of an AFT over those of a Transformer with a KV cache, and both speeds."""
    ours, theirs = (
        step_speed(name, batch=batch, context=context, shape=shape, device=device, dtype=dtype)
        for name in (mixer, "attention")
    )
    return ours.tokens_per_second / theirs.tokens_per_second, ours, theirs


def _tensors(memory: Memory) -> list[torch.Tensor]:
    """The state of a memory; biases are weights."""
    if isinstance(memory, CacheMemory):
        return list(memory.caches.values())
    if isinstance(memory, WindowMemory):
        return [memory.ring, *memory.far]
    if isinstance(memory, SumMemory):
        return [*memory.state]
    assert isinstance(memory, MatrixMemory)
    return [memory.sums]


def _fill(memory: Memory) -> None:
    """A state as it might be after many symbols."""
    for tensor in _tensors(memory):
        tensor.normal_()
    if isinstance(memory, WindowMemory):
        memory.far.den.abs_().add_(1.0)
    elif isinstance(memory, SumMemory):
        memory.state.den.abs_().add_(1.0)
    elif isinstance(memory, MatrixMemory):
        memory.sums.abs_().add_(1.0)


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    """The step as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _timed(step: Callable[[], None]) -> float:
    """Median seconds of a step on the device, by events around many."""
    count = max(1, round(SECONDS / max(1e-6, _event_seconds(step, 10))))
    return statistics.median(_event_seconds(step, count) for _ in range(REPEATS))


def _event_seconds(step: Callable[[], None], count: int) -> float:
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    for _ in range(count):
        step()
    after.record()
    torch.cuda.synchronize()
    return before.elapsed_time(after) / 1e3 / count


def _clocked(step: Callable[[], None]) -> float:
    """Median seconds of a step on the CPU."""
    step()
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
