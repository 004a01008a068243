"""The whole models that `aft-lens bench gpu` compares."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aft_lens.models import VisionModel, create_model
from aft_lens.training import compile_blocks
from analyses.bench.gpu.record import ModelRow
from analyses.bench.gpu.timing import replayed


@dataclass(frozen=True)
class BenchModel:
    """A registered model, what is changed in it, and its batch."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    batch: int = 256


REPLAYS = 9
FINE = {"patch_size": 4}
"""A 56 x 56 grid: T = 3,136."""
MODELS = {
    "deit_small": BenchModel("vit_small_patch16_224"),
    "aft_conv_small_11_32": BenchModel("aft_conv_small_11_16", {"num_heads": 32}),
    "aft_conv_small_11_384": BenchModel("aft_conv_small_11_384"),
    "aft_conv_small_indexed": BenchModel("aft_conv_small_11_384", {"keep": (1,) * 12}),
    "deit_small_56": BenchModel("vit_small_patch16_224", FINE, 16),
    "aft_conv_small_11_32_56": BenchModel("aft_conv_small_11_16", {"num_heads": 32, **FINE}, 16),
}


def model_row(chosen: BenchModel) -> ModelRow:
    """Images a second of inference and of training steps, and the peak memory of a step launched call by call."""
    torch.compiler.reset()
    model, batch = create_model(chosen.name, **chosen.changes).cuda(), chosen.batch
    compile_blocks(model)
    images = torch.randn(batch, 3, 224, 224, device="cuda")
    labels = torch.randint(1000, (batch,), device="cuda")
    model.eval()
    with torch.no_grad(), mixed():
        inference = replayed([lambda: model(images)], REPLAYS).median
    model.train()
    step = training_step(model, images, labels)
    for _ in range(2):
        step()
    torch.cuda.reset_peak_memory_stats()
    step()
    peak = torch.cuda.max_memory_allocated() / 2**30
    training = replayed([step], REPLAYS).median
    return ModelRow(batch / inference * 1e6, batch / training * 1e6, peak)


def mixed() -> torch.autocast:
    """bfloat16 autocast that a graph can hold: weights are cast anew on every pass."""
    return torch.autocast("cuda", torch.bfloat16, cache_enabled=False)


def training_step(model: VisionModel, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), fused=True, capturable=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with mixed():
            loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step
