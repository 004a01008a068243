"""A short training of a pruned model: kept biases and all other weights move, the offsets stay."""

import copy

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from aft_lens.data import FileBatches, ResidentBatches
from aft_lens.models import VisionModel
from aft_lens.progress import progress

CLIP = 1.0
"""Largest gradient norm of a step."""


def finetune(
    model: VisionModel,
    train: Dataset | ResidentBatches | FileBatches,
    *,
    epochs: int,
    lr: float = 5e-4,
    weight_decay: float = 0.05,
    batch_size: int = 64,
    seed: int = 0,
) -> VisionModel:
    """Train a copy for some epochs by AdamW under a cosine from `lr` to 0, and return it in evaluation mode.

    `train` yields (image `c y x`, label), or is batches, of their own size. Weight decay spares position
    biases, norms and every other vector. The global random state is left as it was. Raises ValueError if `epochs`
    is negative.
    """
    if epochs < 0:
        raise ValueError(f"epochs must be 0 or more, got {epochs}")
    model = copy.deepcopy(model)
    if epochs == 0:
        return model.eval()
    device = next(model.parameters()).device
    decayed = {name for name, p in model.named_parameters() if p.ndim > 1 and "position_bias" not in name}
    groups = [
        {"params": [p for name, p in model.named_parameters() if name in decayed], "weight_decay": weight_decay},
        {"params": [p for name, p in model.named_parameters() if name not in decayed], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    shuffle = torch.Generator().manual_seed(seed)
    loader: DataLoader | ResidentBatches | FileBatches
    if isinstance(train, ResidentBatches | FileBatches):
        loader = train
    else:
        loader = DataLoader(train, batch_size, shuffle=True, generator=shuffle)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, epochs * len(loader)))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model.train()
        for _ in progress(range(epochs), "fine-tune"):
            for images, labels in loader:
                loss = F.cross_entropy(model(images.to(device)), labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                schedule.step()
    return model.eval()
