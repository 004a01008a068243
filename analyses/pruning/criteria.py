"""How much an offset matters: a score for every place of every window, higher where it should stay."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from aft_lens.models import VisionModel
from analyses.pruning.compact import conv_mixers, dense_biases, dense_weights, masked_model
from analyses.pruning.measure import Batches

CRITERIA = ("magnitude", "hard", "activation", "taylor", "exact", "random", "centre")


def score(model: VisionModel, criterion: str, batches: Batches = (), *, seed: int = 0) -> list[Tensor]:
    """Score every offset of every head, one `h y x` a layer, by a criterion's name.

    - "magnitude": |exp(w) - 1|, what an offset adds beyond the pool (Eq. 3).
    - "hard": softmax of w over the window, whose first is Eq. 10's hard choice.
    - "activation": mean key mass read at the offset x |exp(w) - 1|.
    - "taylor": |first-order change of the loss| if exp(w) - 1 goes to 0.
    - "exact": the change of the loss with this one offset set to 0.
    - "random" and "centre" (nearest the target first): the controls.

    An offset whose bias is 0 does nothing and scores 0 by any criterion. "activation", "taylor" and "exact" are
    measured on `batches` and raise ValueError without any; an unknown name raises ValueError too.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion must be one of {CRITERIA}, got {criterion!r}")
    if criterion in _MEASURED:
        if not batches:
            raise ValueError(f"batches must hold calibration images for criterion {criterion!r}, got none")
        return _MEASURED[criterion](model, batches)
    biases = dense_biases(model)
    if criterion == "hard":
        return _hard(model, biases)
    if criterion == "random":
        generator = torch.Generator().manual_seed(seed)
        return [(torch.rand(w.shape, generator=generator).to(w.device) + 0.5) * (w != 0) for w in biases]
    if criterion == "centre":
        return [_centre(w) * (w != 0) for w in biases]
    return [torch.expm1(w).abs() for w in biases]


def _hard(model: VisionModel, biases: Sequence[Tensor]) -> list[Tensor]:
    """softmax(w) over the window; for Eq. 10 of the inner w, at its hard choice."""
    scores = []
    for mixer, w in zip(conv_mixers(model), biases, strict=True):
        logits = mixer.position_bias.logits()
        scores.append(_share(w if logits is None else logits.detach()) * (w != 0))
    return scores


def _share(w: Tensor) -> Tensor:
    """softmax over each head's window."""
    return w.flatten(1).softmax(1).view(w.shape)


def _centre(w: Tensor) -> Tensor:
    """1 / (1 + distance), ties broken in raster order."""
    grid = torch.meshgrid(*(torch.arange(side, device=w.device) - side // 2 for side in w.shape[1:]), indexing="ij")
    distance = torch.stack(grid).float().norm(dim=0)
    return (1 / (1 + distance)).expand_as(w).contiguous()


@torch.no_grad()
def _activation(model: VisionModel, batches: Batches) -> list[Tensor]:
    """Mean over images and targets of softmax(K) at the offset (0 off the grid), times |exp(w) - 1|."""
    biases = dense_biases(model)
    mass = [torch.zeros_like(w) for w in biases]
    mixers = conv_mixers(model)
    keys: dict[int, Tensor] = {}

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: torch.nn.Module, _inputs: object, key: Tensor) -> None:
            keys[layer] = key

        return hook

    handles = [mixer.hook_key.register_forward_hook(keep(i)) for i, mixer in enumerate(mixers)]
    try:
        model.eval()
        for images, _ in batches:
            model(images.to(biases[0].device))
            for layer, total in enumerate(mass):
                total += _key_mass(keys[layer], total.shape[1:])
    finally:
        for handle in handles:
            handle.remove()
    return [total * torch.expm1(w).abs() for total, w in zip(mass, biases, strict=True)]


def _key_mass(key: Tensor, window: Sequence[int]) -> Tensor:
    """Sum over images of the mean over targets of softmax(K) at every offset; key `b h y x`, result `h y x`."""
    share = key.flatten(2).softmax(-1).sum(0).view(key.shape[1], 1, *key.shape[2:])
    rows, columns = window
    patches = F.unfold(share, (rows, columns), padding=(rows // 2, columns // 2))
    return patches.mean(-1).view(key.shape[1], rows, columns)


def _taylor(model: VisionModel, batches: Batches) -> list[Tensor]:
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
def _exact(model: VisionModel, batches: Batches) -> list[Tensor]:
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
    for layer, w in enumerate(biases):
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


_MEASURED = {"activation": _activation, "taylor": _taylor, "exact": _exact}
