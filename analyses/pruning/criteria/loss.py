"""What the loss on images says of an offset: to first order, and with the offset really gone."""

import torch
import torch.nn.functional as F
from torch import Tensor

from aft_lens.models import VisionModel
from aft_lens.progress import progress
from analyses.pruning.criteria.registry import CRITERIA, Criterion
from analyses.pruning.cutting.compact import dense_biases, dense_weights, masked_model
from analyses.pruning.measuring.cost import Batches


def taylor(model: VisionModel, batches: Batches, seed: int) -> list[Tensor]:
    """|u dL/du| for u = exp(w) - 1, in which numerator and denominator are linear: |(1 - e^-w) dL/dw|."""
    biases = dense_biases(model)
    dense = masked_model(model, [torch.ones_like(w, dtype=torch.bool) for w in biases])
    weights = dense_weights(dense)
    for parameter in dense.parameters():
        parameter.requires_grad_(False)
    for weight in weights:
        weight.requires_grad_(True)
    count = sum(len(labels) for _, labels in batches)
    total = [torch.zeros_like(w) for w in biases]
    for images, labels in batches:
        loss = F.cross_entropy(dense(images.to(biases[0].device)), labels.to(biases[0].device), reduction="sum")
        for gradient, part in zip(torch.autograd.grad(loss / count, weights), total, strict=True):
            part += gradient
    return [(-torch.expm1(-w) * gradient).abs() for w, gradient in zip(biases, total, strict=True)]


@torch.inference_mode()
def exact(model: VisionModel, batches: Batches, seed: int) -> list[Tensor]:
    """Loss with one offset set to 0, minus the loss as it is; later layers run alone on the stored input."""
    biases = dense_biases(model)
    device = biases[0].device
    dense = masked_model(model, [torch.ones_like(w, dtype=torch.bool) for w in biases])
    images = torch.cat([images for images, _ in batches]).to(device)
    labels = torch.cat([labels for _, labels in batches]).to(device)
    grid = dense.grid(images)
    x = dense.stem(images).flatten(2).transpose(1, 2)

    def loss(first: int, tokens: Tensor) -> Tensor:
        for block in dense.blocks[first:]:
            tokens = block(tokens, grid)
        return F.cross_entropy(dense.head(dense.norm(tokens).mean(1)), labels)

    base = loss(0, x)
    scores = []
    for layer, w in enumerate(progress(biases, "exact")):
        weight = dense_weights(dense)[layer].flatten()
        change = torch.zeros_like(weight)
        for place in weight.nonzero().flatten().tolist():
            value = weight[place].clone()
            weight[place] = 0.0
            change[place] = loss(layer, x) - base or torch.finfo(w.dtype).tiny
            weight[place] = value
        scores.append(change.view(w.shape))
        x = dense.blocks[layer](x, grid)
    return scores


CRITERIA.add("taylor", Criterion(taylor, "largest first-order change of the loss", measured=True))
CRITERIA.add("exact", Criterion(exact, "largest change of the loss with the offset gone", measured=True))
