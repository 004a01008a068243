"""From heads that are masked to heads that are gone: a ViT of ours whose replaced heads compute by position."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from aft_lens.layers.head_readers import Convolved, Gathered, HeadReader, Mapped
from aft_lens.layers.mixers.attention import Attention
from aft_lens.layers.mixers.replaced_attention import ATTENTION, MEAN, ReplacedAttention
from aft_lens.models import VisionModel
from analyses.ablate.calibration import Calibration
from analyses.ablate.replacer import Edits, kept, matrices
from analyses.ablate.rung import COUNTED, Rung


def head_words(edits: Edits, depth: int, num_heads: int, grid: tuple[int, int]) -> tuple[str, ...]:
    """What each head becomes, a text a layer, as `ModelConfig.heads` has it.

    Raises ValueError on a head that there is not, and on resample, which needs the images of its calibration.
    """
    offsets = (2 * grid[0] - 1) * (2 * grid[1] - 1)
    words = [[ATTENTION] * num_heads for _ in range(depth)]
    for (layer, head), rung in edits.items():
        if not (0 <= layer < depth and 0 <= head < num_heads):
            raise ValueError(f"heads must be of {depth} layers of {num_heads}, got {layer}.{head}")
        if rung.kind == "resample":
            raise ValueError("resample reads another image and has no compact form; give mean or uniform")
        count = 1 if rung.kind == "rank" else min(rung.offsets, offsets)
        words[layer][head] = f"offsets:{count}" if rung.kind in COUNTED else rung.kind
    return tuple(" ".join(row) for row in words)


@torch.no_grad()
def compact_vit(model: VisionModel, calibration: Calibration, edits: Edits, *, seed: int = 0) -> VisionModel:
    """A ViT without the query and key projections of the heads in `edits`, which read as their rungs say.

    `model` mixes by attention (`plain_vit` makes one) and stays as it is; `calibration` is of it or of the model that
    it is made from; `seed` draws the offsets of "random". Heads of mean and zero lose their value as well. The result
    takes images of one size and equals `Replacer.replaced` but for rounding. Raises ValueError on another mixer, and as
    `head_words` does.
    """
    config, positions = model.config, calibration.positions
    if config.traits.weights != "attention":
        raise ValueError(f"model must mix by attention, got {config.mixer}; plain_vit makes such a model of a ViT")
    words = head_words(edits, config.depth, config.num_heads, positions.grid)
    found = VisionModel(replace(config, mixer="replaced_attention", heads=words)).to(model.pos_embed.device)
    own = {name: tensor for name, tensor in model.state_dict().items() if ".mixer." not in name}
    missing, unexpected = found.load_state_dict(own, strict=False)
    assert not unexpected
    assert all(".mixer." in name for name in missing)
    for layer, (block, given) in enumerate(zip(found.blocks, model.blocks)):
        mixer, attention = block.get_submodule("mixer"), given.get_submodule("mixer")
        assert isinstance(mixer, ReplacedAttention)
        assert isinstance(attention, Attention)
        rungs = {head: rung for (where, head), rung in edits.items() if where == layer}
        _fill(mixer, attention, calibration, layer, rungs, seed)
    return found.eval().requires_grad_(False)


def _fill(
    mixer: ReplacedAttention, attention: Attention, calibration: Calibration, layer: int, rungs: Mapping[int, Rung],
    seed: int,
) -> None:  # fmt: skip
    """Give a layer the weights of the heads that are left, and the others what they read by."""
    c, p, positions = mixer.channels, mixer.prefix, calibration.positions
    out = attention.proj.weight.unflatten(1, (-1, c))  # d h c
    if mixer.qkv is not None and mixer.proj is not None:
        weight, bias = (
            [part.unflatten(0, (-1, c)) for part in one.chunk(3)]
            for one in (attention.qkv.weight, attention.qkv.bias)
        )  # fmt: skip
        attending = mixer.order[: mixer.attending]
        chosen = (attending, attending, mixer.order)
        mixer.qkv.weight.copy_(torch.cat([part[heads] for part, heads in zip(weight, chosen)]).flatten(0, 1))
        mixer.qkv.bias.copy_(torch.cat([part[heads] for part, heads in zip(bias, chosen)]).flatten())
        mixer.proj.weight.copy_(out[:, mixer.order].flatten(1))
        mixer.proj.bias.copy_(attention.proj.bias)
    if mixer.has_constant:
        means = [head for head, rung in rungs.items() if rung.kind == MEAN]
        given = calibration.mean[layer, means].to(out)  # h p+1 c
        constant = torch.einsum("hpc,dhc->pd", given, out[:, means])
        mixer.constant.copy_(constant if mixer.proj is not None else constant + attention.proj.bias)
    start = mixer.attending
    for module in mixer.readers:
        assert isinstance(module, HeadReader)
        heads = mixer.order[start : start + module.slots.heads]
        columns = positions.columns[layer, heads]
        rows = torch.stack([_prefix_rows(calibration, rungs[head], layer, head, seed, p) for head in heads])
        if p:
            place = slice(start - mixer.attending, start - mixer.attending + len(heads))
            mixer.columns[place] = columns.to(mixer.columns)
            mixer.rows[place] = rows.to(mixer.rows)
        _fill_reader(module, calibration, layer, heads, [rungs[head] for head in heads], seed)
        if not isinstance(module, Convolved):
            module.share.copy_(1 - columns.sum(-1))
        module.tables()
        start += len(heads)


def _prefix_rows(calibration: Calibration, rung: Rung, layer: int, head: int, seed: int, p: int) -> Tensor:
    """What prefix tokens as targets give all tokens: their mean rows, but for a uniform head."""
    if rung.kind == "uniform" and p:
        return matrices(calibration.positions, rung, layer, seed)[head, :p]
    return calibration.positions.rows[layer, head]


def _fill_reader(
    module: nn.Module, calibration: Calibration, layer: int, heads: Sequence[int], rungs: Sequence[Rung], seed: int
) -> None:  # fmt: skip
    """Offsets, maps or kernels of some heads of one kind."""
    positions = calibration.positions
    if isinstance(module, Convolved):
        taps = calibration.kernel[layer, heads].to(module.weight)  # h c tap
        module.weight.copy_(taps[..., :-1].reshape(module.weight.shape))
        module.bias.copy_(taps[..., -1].flatten())
        return
    if not isinstance(module, Gathered | Mapped):
        return
    cut: list[Any] = [
        positions.maps[layer, head] if rung.kind == "map" else kept(positions, rung, layer, seed)[head]
        for head, rung in zip(heads, rungs)
    ]  # fmt: skip
    maps = torch.stack(cut)
    if isinstance(module, Mapped):
        module.map.copy_(maps)
        return
    weight, place = maps.flatten(1).topk(module.weight.shape[1])
    width, (rows, columns) = maps.shape[2], positions.grid
    module.weight.copy_(weight)
    module.offset.copy_(torch.stack([place // width - (rows - 1), place % width - (columns - 1)], -1))


def with_classifier(model: VisionModel, weight: Tensor, bias: Tensor) -> VisionModel:
    """Give a model a classifier of its features, e.g. a probe's, in place of its own; returns the model."""
    model.config = replace(model.config, num_classes=len(weight))
    model.head = nn.Linear(weight.shape[1], len(weight), device=model.pos_embed.device).requires_grad_(False)
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.copy_(bias)
    return model


@torch.no_grad()
def renormalised(model: VisionModel, before: tuple[Any, Any], after: tuple[Any, Any]) -> VisionModel:
    """Have a model take images normalised by another mean and standard deviation, each a number a channel.

    x' = (x s' + m' - m) / s goes into the patch projection; returns the model. Raises ValueError on a stem that is no
    single projection.
    """
    if [list(each) for each in before] == [list(each) for each in after]:
        return model
    stem = model.stem
    if not isinstance(stem, nn.Conv2d) or stem.bias is None:
        raise ValueError("images can be normalised otherwise for a stem of one projection alone; this one has more")
    (mean, std), (own_mean, own_std) = (
        [torch.tensor(each, dtype=torch.float64, device=stem.weight.device) for each in pair]
        for pair in (before, after)
    )
    kernel = stem.weight.double()  # d c y x
    shift = (own_mean - mean) / std
    stem.bias.copy_(stem.bias.double() + torch.einsum("dcyx,c->d", kernel, shift))
    stem.weight.copy_(kernel * (own_std / std)[:, None, None])
    return model
