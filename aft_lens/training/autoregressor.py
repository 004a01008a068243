"""The LightningModule of decoders: bits a symbol, learned and validated."""

import math
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MeanMetric

from aft_lens.data import share_size
from aft_lens.data.sequences import SequenceBatches, SequenceSource, Window
from aft_lens.training.bits import BATCH_SYMBOLS
from aft_lens.training.module import TrainedModule
from aft_lens.training.recipe import DecoderRecipe


class _Windows:
    """Batches that are there; a list of them would be to Lightning a list of loaders."""

    def __init__(self, batches: list[Window]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Window]:
        return iter(self.batches)


class Autoregressor(TrainedModule):
    """Cross entropy of every symbol given those before it; metrics in nats (loss) and bits a symbol."""

    items = "sequences"
    recipe: DecoderRecipe

    def __init__(self, recipe: DecoderRecipe, data: SequenceSource) -> None:
        super().__init__(recipe)
        self.data = data
        self.val_loss, self.val_bits = (MeanMetric(nan_strategy="disable") for _ in range(2))

    def share(self, processes: int) -> int:
        """Windows that each of the processes trains on in an epoch."""
        return share_size(len(self.data.train), processes, filled=False)

    def train_dataloader(self) -> SequenceBatches:
        """Training windows in a random order, the last incomplete batch dropped."""
        self._seed()
        self._seeded = True
        return SequenceBatches(
            self.data, self.recipe.data.batch_size, self._epoch_seed, device=self.device,
            augment=self.recipe.data.augment, share=(self.global_rank, self.trainer.world_size),
        )  # fmt: skip

    def val_dataloader(self) -> "_Windows":
        """Every validation symbol once, shared among the processes."""
        split, batch = self.data.val.to(self.device), max(1, BATCH_SYMBOLS // self.data.length)
        return _Windows(list(split.windows(batch))[self.global_rank :: self.trainer.world_size])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Loss of one batch."""
        inputs, targets = batch
        loss = F.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten())
        self._log({"train_loss": loss.detach(), "train_bits": loss.detach() / math.log(2)}, len(targets))
        return loss

    def validation_step(self, batch: Window, batch_idx: int) -> None:
        """Loss and bits of one batch's counted symbols."""
        logits = self.model(batch.symbols[:, :-1])[:, batch.counted :]
        targets = batch.symbols[:, 1 + batch.counted :]
        nats = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
        self.val_loss.update(nats)
        self.val_bits.update(nats / math.log(2))
        self.log_dict({"val_loss": self.val_loss, "val_bits": self.val_bits}, prog_bar=True)
