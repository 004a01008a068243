"""What a head reads at each offset, measured on images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aft_lens.extraction import watch
from aft_lens.models import VisionModel
from analyses.pruning.criteria.registry import CRITERIA, Criterion
from analyses.pruning.cutting.compact import dense_biases
from analyses.pruning.measuring.cost import Batches


@torch.no_grad()
def activation(model: VisionModel, batches: Batches, seed: int) -> list[Tensor]:
    """Mean over images and targets of softmax(K) at the offset (0 off the grid), times |exp(w) - 1|."""
    biases = dense_biases(model)
    mass = [torch.zeros_like(w) for w in biases]
    layers = {f"blocks.{number}.mixer.hook_key": total for number, total in enumerate(mass)}

    def add(name: str, key: Tensor) -> None:
        layers[name] += _key_mass(key, layers[name].shape[1:])

    model.eval()
    for images, _ in batches:
        with watch(model, list(layers), add):
            model(images.to(biases[0].device))
    return [total * torch.expm1(w).abs() for total, w in zip(mass, biases, strict=True)]


def _key_mass(key: Tensor, window: Sequence[int]) -> Tensor:
    """Sum over images of the mean over targets of softmax(K) at every offset; key `b h y x`, result `h y x`."""
    share = key.flatten(2).softmax(-1).sum(0).view(key.shape[1], 1, *key.shape[2:])
    rows, columns = window
    patches = F.unfold(share, (rows, columns), padding=(rows // 2, columns // 2))
    return patches.mean(-1).view(key.shape[1], rows, columns)


CRITERIA.add("activation", Criterion(activation, "largest share of what the head reads", measured=True))
