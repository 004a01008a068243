"""Causal operators, decoders' training steps and generation on one GPU, in one run: `aft-lens bench causal`."""

from dataclasses import replace
from pathlib import Path

import torch

from aft_lens.files import write_whole
from analyses.bench.causal.decoders import BATCH, CONFIG, MIXERS, step_row
from analyses.bench.causal.record import NAME, CausalRecord, GenerationRow
from analyses.bench.generation import generation_ratio
from analyses.bench.gpu.contestants import backend_of
from analyses.bench.gpu.operators import Case
from analyses.bench.gpu.run import operator_rows, show
from analyses.provenance import RESULTS, command_line, environment
from analyses.result import dump

METHOD = (
    "bfloat16, d = 384, window 32, biases of AFT-local as factors of rank 128. Operators: CUDA graphs over three sets "
    "of random inputs in turn, medians and quartiles of 15 replays, microseconds a call, the core operator alone, "
    "gradients of every input. Attention has 6 heads of 64, by the backend that PyTorch picks. copy: Q and V are "
    "copied, as many bytes as Q, K, V and Y. error is ||out - float64 reference|| / ||reference|| on channels of the "
    "first sequence. Training: 12 blocks of d = 384, every block compiled, bfloat16 autocast, fused AdamW, a CUDA "
    "graph of a whole step, medians of 9. Generation: a step at the context's end with random weights and state, a "
    "CUDA graph, attention over a cache of keys and values, median."
)
GENERATION, QUICK_GENERATION = (64, 4096), (2, 256)
"""Batch and context of the steps of generation, whose decoders are `analyses.bench.generation`'s."""
CASES = tuple(
    Case(batch, (1, length), 0, 32, ("copy", "sdpa_causal", "simple_causal", "local_causal"))
    for batch, length in ((32, 1024), (8, 4096))
)


def command(out: Path | None = None, *, quick: bool = False) -> None:
    """Measure on the GPU; save, print and draw. Raises ValueError without CUDA."""
    if not torch.cuda.is_available():
        raise ValueError("bench causal needs a CUDA device, none was found; `aft-lens bench ops` measures on the CPU")
    torch.manual_seed(0)
    folder = out or RESULTS
    cases = [replace(case, batch=1) for case in CASES] if quick else CASES
    chosen = {str(case.grid[1]): backend(case) for case in cases}
    measured = CausalRecord(command_line(), **environment("cuda"), method=METHOD, attention=chosen)
    for case in cases:
        measured = replace(measured, operators=(*measured.operators, *operator_rows(case)[0]))
        _write(measured, folder)
    for mixer in MIXERS:
        config = replace(CONFIG, mixer=mixer)
        row = step_row(replace(config, depth=1, length=256) if quick else config, BATCH)
        print(f"{row.mixer:12} {row.milliseconds:8.2f} ms a step, {row.peak_gib:.2f} GiB", flush=True)
        measured = replace(measured, training=(*measured.training, row))
        _write(measured, folder)
    batch, context = QUICK_GENERATION if quick else GENERATION
    for speed in generation_ratio(batch=batch, context=context)[1:]:
        print(f"{speed.mixer:12} {speed.tokens_per_second:10,.0f} tokens/s at context {speed.context:,}", flush=True)
        step = GenerationRow(speed.mixer, speed.batch, speed.context, speed.tokens_per_second)
        measured = replace(measured, generation=(*measured.generation, step))
    _write(measured, folder)
    print(f"wrote {folder / f'{NAME}.json'}")
    show("causal", folder)


def backend(case: Case) -> str:
    """What PyTorch picks for causal attention of these shapes, trained."""
    query, key, value = (tensor.requires_grad_() for tensor in case.inputs("sdpa_causal", 0))
    return backend_of(query, key, value, causal=True)


def _write(measured: CausalRecord, folder: Path) -> None:
    """Write what is measured so far: a run cut short loses what it was at alone."""
    write_whole(folder / f"{NAME}.json", dump(measured.record()))
