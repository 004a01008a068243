"""Operators and whole models on one GPU, in one run: `aft-lens bench gpu`."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aft_lens.files import write_whole
from analyses.bench.gpu import line
from analyses.bench.gpu.comparisons import document
from analyses.bench.gpu.models import MODELS, model_row
from analyses.bench.gpu.operators import ATTENTION, FORMS, OPERATORS, Case, backend, error, floor_train
from analyses.bench.gpu.record import WORDS, GPURecord, OperatorRow, record_name
from analyses.bench.gpu.timing import launched, replayed
from analyses.provenance import RESULTS, command_line, environment
from analyses.result import dump

SETS = 3
"""Sets of inputs taken in turn; together they exceed the cache (each is over 100 MB at batch 256)."""
METHOD = (
    "bfloat16, d = 384. Operators: CUDA graphs over three sets of random inputs in turn, medians and quartiles of 15 "
    "replays, microseconds a call, the core operator alone, gradients of every input. Attention has 6 heads of 64, "
    "by the backend that PyTorch picks, which its row names, or a pinned one. "
    "floor copies as many bytes as AFT-conv of that shape must move: Q, K, V and Y; trained, Q, K, V, dY and the "
    "gradients besides. error is ||out - float64 reference|| / ||reference|| on the first images of the same inputs. "
    "Models: every block compiled, batch 256 at 224 pixels (_56: patches of 4, a 56 x 56 grid, batch 16), bfloat16 "
    "autocast; a training step is forward, backward and fused AdamW; CUDA graphs of "
    "a whole pass or step, medians of 9."
)
CASES = (
    Case(256, (14, 14), 0, 0, ("copy", *ATTENTION)),
    *(Case(256, (14, 14), heads, 11, ("aft_conv", "prepared", "indexed", "floor")) for heads in (384, 32, 16)),
    *(Case(batch, (side, side), 0, 0, ("copy", "sdpa", "linear")) for batch, side in ((64, 28), (16, 56), (4, 112))),
    *(Case(batch, (side, side), 32, 11, ("aft_conv",)) for batch, side in ((64, 28), (16, 56), (4, 112))),
    *(Case(256, (14, 14), heads, 11, ("eq6",)) for heads in (32, 384)),
    *(Case(256, (14, 14), heads, 11, FORMS) for heads in (32, 16)),
    *(Case(batch, (side, side), 32, 11, ("eq6",)) for batch, side in ((64, 28), (16, 56))),
    *(Case(batch, (1, length), 0, 32, ("copy", *line.OPERATORS)) for batch, length in ((32, 1024), (8, 4096))),
    *(Case(256, (14, 14), 32, side, ("aft_conv",)) for side in (3, 7, 15, 25)),
    *(Case(16, (56, 56), heads, side, ("aft_conv",)) for heads, side in ((16, 11), (384, 11), (32, 3), (32, 25))),
)


def command(out: Path | None = None, *, quick: bool = False) -> None:
    """Measure operators and models on the GPU; save, print and draw them. Raises ValueError without CUDA."""
    if not torch.cuda.is_available():
        raise ValueError("bench gpu needs a CUDA device, none was found; `aft-lens bench ops` measures on the CPU")
    torch.manual_seed(0)
    folder = out or RESULTS
    measured = GPURecord(command_line(), **environment("cuda"), method=METHOD)
    for name in list(MODELS)[:2] if quick else MODELS:
        row = model_row(MODELS[name])
        print(f"{name:26} {row.inference:8.0f} {row.training:8.0f} images/s  {row.peak_gib:.2f} GiB", flush=True)
        measured = replace(measured, models={**measured.models, name: row})
        _write(measured, folder)
    for case in CASES[:2] if quick else CASES:
        found, left_out = operator_rows(case)
        operators, words = (*measured.operators, *found), (*measured.left_out, *left_out)
        measured = replace(measured, operators=operators, left_out=words)
        _write(measured, folder)
    print(f"wrote {folder / f'{record_name(measured.hardware)}.json'}")
    show("gpu", folder)


def show(bench: str, folder: Path) -> None:
    """Print and draw a bench's record in a folder; where the libraries for figures are missing, say how to do it later.

    `bench` is the folder of analyses.bench whose `result` has the command that does it.
    """
    try:
        result = import_module(f"analyses.bench.{bench}.result")
    except ModuleNotFoundError as error:  # as on a machine that measures alone
        print(f"{error.name} is not installed: print and draw the record elsewhere with `aft-lens bench {bench}_table`")
        return
    result.command(folder)


def _write(measured: GPURecord, folder: Path) -> None:
    """Write what is measured so far: a run cut short loses what it was at alone."""
    write_whole(folder / f"{record_name(measured.hardware)}.json", dump(document(measured)))


def operator_rows(case: Case) -> tuple[list[OperatorRow], list[str]]:
    """Forward and forward + backward of each of a case's operators, on the same tensors; what does not run, and why."""
    found, left_out = [], []
    for name in case.operators:
        try:
            row = operator_row(case, name)
        except Exception as why:  # whatever a foreign kernel or compiler raises: the others are measured without it
            if name not in (*FORMS, "sdpa_flash", "sdpa_cudnn"):
                raise
            said = next(iter(str(why).strip().splitlines()), type(why).__name__)
            left_out.append(f"{WORDS[name]}, {case.heads} heads: {said}")
            print(f"not measured: {left_out[-1]}", flush=True)
            continue
        found.append(row)
        print(_line(row), flush=True)
    return found, left_out


def operator_row(case: Case, name: str) -> OperatorRow:
    """One operator of a case."""
    run, timed = OPERATORS[name], launched if name in line.UNCAPTURED else replayed
    sets = [case.inputs(name, seed) for seed in range(SETS)]
    train, peak = None, None
    with torch.no_grad():
        checked = error(case, name, sets[0])
        forward = timed([_bound(run, case, tensors) for tensors in sets])
    if name == "floor":
        train = timed([partial(floor_train, *tensors[:3]) for tensors in sets])
    elif name not in ("copy", "prepared"):
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        gradient = _differentiated(run, case, sets[0])
        gradient()
        peak = (torch.cuda.max_memory_allocated() - before) / 2**20
        train = timed([_differentiated(run, case, tensors) for tensors in sets])
    return OperatorRow(
        name, case.batch, case.grid, case.heads, case.window, forward, train, checked, peak, backend(name, sets[0])
    )


def _bound(run: Callable[..., Tensor], case: Case, tensors: Sequence[Tensor]) -> Callable[[], Tensor]:
    return lambda: run(case, *tensors)


def _differentiated(run: Callable[..., Tensor], case: Case, tensors: Sequence[Tensor]) -> Callable[[], Any]:
    """Forward and every gradient, for a cotangent of the output's own values."""
    inputs = [tensor.detach().requires_grad_() for tensor in tensors]
    upstream = torch.randn_like(run(case, *tensors))
    return lambda: torch.autograd.grad(run(case, *inputs), inputs, upstream)


def _line(row: OperatorRow) -> str:
    train = " " * 9 if row.train_us is None else f"{row.train_us.median:9.1f}"
    shape = f"{row.grid[0]} x {row.grid[1]} h {row.heads} w {row.window}"
    check = "" if row.error is None else f"error {row.error:.1e}"
    return f"{row.operator:9} {shape:22} {row.forward_us.median:9.1f} {train} us {check}"
