"""Train a recipe in two processes on the CPU and write what each of them saw."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from aft_lens.models import model_config
from aft_lens.ops import aft_conv
from aft_lens.training import DataRecipe, OptimRecipe, Recipe, SparsityRecipe, TrainerRecipe, train
from aft_lens.training.checkpointing import Checkpointing
from aft_lens.training.gumbel_health import single_positions

PROCESSES = 2
GLOBAL_BATCH = 64
VALIDATED = 179
"""Validation images: no multiple of the processes."""


def recipe(kind: str, processes: int) -> Recipe:
    """A tiny AFT-conv for two epochs without any draw ("equal"), or three of sampled positions ("gumbel")."""
    gumbel = kind == "gumbel"
    model = model_config(
        "aft_conv_digits", depth=2, embed_dim=16, num_heads=4, window_size=3, stem="patch",
        position_bias="single" if gumbel else "reparameterized",
    )  # fmt: skip
    return Recipe(
        model=model,
        data=DataRecipe(
            augment="shift" if gumbel else "none",
            batch_size=GLOBAL_BATCH // processes,
            resident=not gumbel,
            repeats=3 if gumbel else 1,
        ),
        optim=OptimRecipe(lr=0.005, warmup_epochs=1, ema=0.9),
        sparsity=SparsityRecipe(entropy_weight=0.01),
        trainer=TrainerRecipe(
            epochs=3 if gumbel else 2,
            accelerator="cpu",
            devices=processes,
            strategy="ddp" if processes > 1 else "auto",
            limit_batches=1.0 if gumbel else 5,
        ),
        seed=3,
    )


def fewer_validated(data):
    """The data with `VALIDATED` images to validate on."""
    val = data.val
    return replace(data, val=type(val)(val.images[:VALIDATED], val.labels[:VALIDATED], val.transform))


class Watch:
    """What a process sees: labels of its batches, whether weights are equal over processes, its Gumbel samples.

    It is written to `r.json` at the end, or when the process is killed in its third epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.labels: list[list[int]] = []
        self.spread: list[float] = []
        self.samples: list[list[float]] = []

    def __call__(self, callback, trainer, module, outputs, batch, number) -> None:
        """After every step."""
        self.labels.append(batch[1].tolist())
        flat = torch.cat([p.detach().flatten() for p in module.model.parameters()])
        everywhere = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
        dist.all_gather(everywhere, flat)
        self.spread.append(max(float((flat - other).abs().max()) for other in everywhere))
        for bias in single_positions(module)[:1]:
            state = torch.get_rng_state()
            self.samples.append(bias().detach().flatten().tolist())
            torch.set_rng_state(state)
        if trainer.current_epoch == 2:
            self.write()
            dist.barrier()
            os._exit(0)

    def write(self) -> None:
        """What was seen as JSON."""
        seen = {key: value for key, value in vars(self).items() if key != "folder"}
        (self.folder / f"{dist.get_rank()}.json").write_text(json.dumps(seen))


def kernels(rank: int) -> dict[str, float]:
    """Gradients of AFT-conv's kernels under DDP against those of the whole batch in one process."""
    torch.manual_seed(0)
    key, value, query = torch.randn(4, 2, 3, 4), torch.randn(4, 2, 3, 3, 4), torch.randn(4, 2, 3, 3, 4)

    class Mixer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.linspace(-1, 1, 18).reshape(2, 3, 3))

        def forward(self, part):
            return aft_conv(query[part], key[part], value[part], self.w, implementation="triton")

    whole = Mixer()
    whole(slice(0, 4)).square().mean().backward()
    shared = DistributedDataParallel(Mixer())
    shared(slice(rank, 4, PROCESSES)).square().mean().backward()
    found, expected = shared.module.w.grad, whole.w.grad
    assert found is not None
    assert expected is not None
    return {"error": float((found - expected).abs().max()), "size": float(expected.abs().max())}


def main(kind: str, folder: Path) -> None:
    """Run one case; rank r writes `r.json`."""
    if kind == "kernels":
        rank = int(os.environ["LOCAL_RANK"])
        dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
        (folder / f"{rank}.json").write_text(json.dumps(kernels(rank)))
        dist.barrier()
        dist.destroy_process_group()
        return
    watch = Watch(folder)
    loaded = sys.modules["aft_lens.training.run"].load_data
    sys.modules["aft_lens.training.run"].load_data = lambda *a, **k: fewer_validated(loaded(*a, **k))
    Checkpointing.on_train_batch_end = lambda self, *a: watch(self, *a)
    train(recipe(kind, PROCESSES), folder / "run", progress=False)
    watch.write()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
