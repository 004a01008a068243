"""Train from image files in two processes on the CPU, write what each saw, and be killed within an epoch."""

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist

from aft_lens.models import model_config
from aft_lens.training import DataRecipe, OptimRecipe, Recipe, TrainerRecipe, train
from aft_lens.training.gumbel_health import GumbelHealth

PROCESSES, GLOBAL_BATCH = 2, 8
KILLED = (1, 4)
"""Epoch and batch after which two processes are killed; the state within the epoch is kept after every second one."""


def recipe(folder: Path, processes: int) -> Recipe:
    """A tiny AFT-conv for two epochs of photos below `folder`, without any draw but the images' own."""
    model = model_config(
        "aft_conv_digits", depth=1, embed_dim=16, num_heads=4, window_size=3, stem="patch", in_chans=3, num_classes=2,
        img_size=8,
    )  # fmt: skip
    data = DataRecipe(
        name=f"folder:{folder / 'photos'}", augment="deit", batch_size=GLOBAL_BATCH // processes, workers=1
    )
    strategy = "ddp" if processes > 1 else "auto"
    trainer = TrainerRecipe(epochs=2, accelerator="cpu", devices=processes, strategy=strategy, save_steps=2)
    return Recipe(model=model, data=data, optim=OptimRecipe(lr=0.005, warmup_epochs=1), trainer=trainer, seed=3)


class Seen:
    """Epoch, batch, labels and sums of images of every step of a process."""

    def __init__(self, killed: Path | None = None) -> None:
        self.steps: list[list] = []
        self.killed = killed

    def __call__(self, callback, trainer, module, batch, number) -> None:
        """Before every step, which its loader has been asked for."""
        at = [trainer.current_epoch, number]
        self.steps.append([*at, batch[1].tolist(), batch[0].sum((1, 2, 3)).tolist()])
        if self.killed is not None and at == [KILLED[0], KILLED[1] + 1]:
            (self.killed / f"{dist.get_rank()}.json").write_text(json.dumps(self.steps))
            dist.barrier()
            os._exit(0)


if __name__ == "__main__":
    seen = Seen(Path(sys.argv[1]))
    GumbelHealth.on_train_batch_start = lambda self, *rest: seen(self, *rest)
    train(recipe(seen.killed, PROCESSES), seen.killed / "run", progress=False)
