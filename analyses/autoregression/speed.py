"""Training steps of decoders at the paper's sizes: time and memory of one GPU, alone on it."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from aft_lens.models import create_decoder
from analyses.autoregression.plan import Study
from analyses.cells import Crew
from analyses.provenance import environment
from analyses.store import Store, fingerprint

ROW = "speeds"
"""Name of the rows in the store."""

SIZES: Mapping[str, Sequence[str]] = {
    "Table 2, T = 3,072": (
        "aft_local_24x256_s256", "aft_simple_24x256_t3072", "transformer_24x256_h2", "image_transformer_12x512_h4"
    ),
    "Table 4, T = 1,024": (
        "aft_local_12x512_s32", "aft_local_24x256_s32", "aft_simple_24x256_t1024", "transformer_12x512_h8",
        "transformer_24x256_h4", "linear_transformer_12x512_h8", "performer_12x512_h8", "synthesizer_12x512_h8",
    ),
}  # fmt: skip
"""Registered decoders by table."""
BATCHES = (32, 16, 8, 4)
"""Sequences a step: the first that fits."""
WARM, TIMED = 2, 5
"""Steps before the clock, and on it."""


def run(study: Study, *, crew: Crew, out: Path) -> None:
    """Time every decoder, bf16 autocast, AdamW, and keep the rows beside the runs; ValueError without a CUDA device."""
    if not torch.cuda.is_available():
        raise ValueError("training steps at the paper's sizes are measured on a CUDA device, and there is none")
    rows = []
    for table, names in SIZES.items():
        for name in names:
            row = {"table": table, "decoder": name, **_first_that_fits(name)}
            print(f"{name}: batch {row['batch']}, {row['milliseconds']} ms, {row['peak_memory_mib']} MiB", flush=True)
            rows.append({**row, **environment("cuda")})
            keep_speeds(study.runs, rows)


def keep_speeds(runs: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep rows beside the runs."""
    Store(runs).put(ROW, fingerprint(ROW), rows)


def read_speeds(runs: Path) -> list[dict[str, Any]]:
    """The rows that are kept; none where nothing was timed."""
    return Store(runs).get(ROW, fingerprint(ROW)) or []


def _first_that_fits(name: str) -> dict[str, Any]:
    for batch in BATCHES:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            seconds = _step_seconds(name, batch)
        except torch.OutOfMemoryError:
            continue
        peak = torch.cuda.max_memory_allocated() / 2**20
        return {"batch": batch, "milliseconds": 1e3 * seconds, "steps_per_second": 1 / seconds,
                "peak_memory_mib": peak}  # fmt: skip
    return {"batch": 0, "milliseconds": None, "steps_per_second": None, "peak_memory_mib": None}


def _step_seconds(name: str, batch: int) -> float:
    """Mean seconds of a training step."""
    with torch.device("cuda"):
        model = create_decoder(name).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    symbols = torch.randint(0, 256, (batch, model.config.length + 1), device="cuda")
    begun = 0.0
    for step in range(WARM + TIMED):
        if step == WARM:
            torch.cuda.synchronize()
            begun = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            logits = model(symbols[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), symbols[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.cuda.synchronize()
    return (time.perf_counter() - begun) / TIMED
