"""A foreign ViT as a model of ours: same features, no other library, a checkpoint like any other."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.errors import InputError
from aft_lens.extraction.own import OwnReader
from aft_lens.extraction.reader import AttentionReader
from aft_lens.extraction.resume import blocks, entering
from aft_lens.models import ModelConfig, VisionModel
from aft_lens.models.config import POOLS
from aft_lens.models.transfer import canonical, found_tensor

AGREES = 1e-5
"""Largest error of the features, as a fraction of their largest entry: sums of float32 in another order."""
JOINT = ("mixer.q_proj", "mixer.k_proj", "mixer.value")
"""Projections that some libraries keep apart, by our names; others have them in one."""


@torch.no_grad()
def plain_vit(reader: AttentionReader, images: Float[Tensor, "b c y x"]) -> VisionModel:
    """The ViT behind a reader as a `VisionModel` with the mixer attention, in evaluation mode on the reader's device.

    It takes images of the reader's size. What comes before the first block (class token, registers, position
    embeddings, interpolated or not) is read off a pass of the model itself, LayerScale goes into the linear layers, and
    the features are checked on `images` (two or more are enough). Raises InputError, a ValueError, on a grid that is
    not square and on a model that does more than pre-norm blocks of attention and a GELU MLP: rotary or relative
    positions, gated MLPs, norms of queries and keys, windows.
    """
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # whose convolutions keep ten bits by default
        return _plain(reader, images)


def _plain(reader: AttentionReader, images: Tensor) -> VisionModel:
    """As `plain_vit`, in full float32."""
    config = _config(reader)
    given = canonical(reader.model.state_dict())
    model = VisionModel(config).to(images.device).eval().requires_grad_(False)
    state, missing = model.state_dict(), []
    tokens, stem = _embedded(reader, torch.zeros_like(images[:1])), []
    for name, start in state.items():
        value = _tensor(given, name)
        if name in ("cls_token", "pos_embed"):
            continue
        if name.startswith("stem."):
            stem.append(name)
        if value is None and name.endswith("bias"):
            value = torch.zeros_like(start)
        if value is None or value.shape != start.shape:
            missing.append(f"{name} {tuple(start.shape)}")
        else:
            state[name] = value.to(start)
    if missing:
        raise InputError(
            f"{reader.source} is no plain ViT under the names of timm, torchvision or transformers: it has no "
            f"{', '.join(missing[:3])}{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}"
        )
    model.load_state_dict(state)
    p = config.prefix
    place = tokens[:, p:] - model.stem(torch.zeros_like(images[:1])).flatten(2).transpose(1, 2)
    model.cls_token.copy_(tokens[:, :p])
    model.pos_embed.copy_(torch.cat([torch.zeros_like(tokens[:, :p]), place], 1))
    return _pooled_alike(model, reader, images)


def _config(reader: AttentionReader) -> ModelConfig:
    """The configuration of our skeleton around the same weights, but for what the classifier reads."""
    (rows, columns), (height, width) = reader.grid, reader.image_size
    patch = height // rows
    if rows != columns or (height, width) != (rows * patch, columns * patch):
        raise InputError(
            f"{reader.source}: a model of ours has a square grid of whole patches, this one has {rows} x {columns} "
            f"patches of {height} x {width} pixels; open it at a square grid"
        )
    if isinstance(reader, OwnReader):
        own: Any = reader.model
        return replace(own.config, img_size=height, drop_path=0.0)
    found = blocks(reader)
    norms = [one for block in found[:1] for one in block.modules() if isinstance(one, nn.LayerNorm)]
    given = canonical(reader.model.state_dict())
    kernel, hidden = _tensor(given, "stem.weight"), _tensor(given, "blocks.0.mlp.0.weight")
    if not norms or kernel is None or hidden is None:
        raise InputError(
            f"{reader.source} is no plain ViT: looked for a stack of blocks with layer norms, a patch projection and "
            f"an MLP of two layers, found {type(reader.model).__name__}"
        )
    dim, head = kernel.shape[0], _tensor(given, "head.weight")
    return ModelConfig(
        "attention", img_size=height, patch_size=patch, in_chans=reader.in_chans,
        num_classes=0 if head is None else len(head), embed_dim=dim, depth=len(reader.layers),
        num_heads=reader.num_heads, mlp_ratio=len(hidden) / dim, prefix_tokens=reader.prefix,
        norm_eps=norms[0].eps, pool="token_mean" if head is not None and head.shape[1] == 2 * dim else "default",
    )  # fmt: skip


def _tensor(given: dict[str, tuple[str, Tensor]], name: str) -> Tensor | None:
    """A tensor of ours from those of another library; None where there is none."""
    value, _ = found_tensor(given, name)
    if value is None and ".mixer.qkv." in name:
        parts = [found_tensor(given, name.replace("mixer.qkv", part))[0] for part in JOINT]
        like = next((part for part in parts if part is not None), None)
        if like is None or (any(part is None for part in parts) and not name.endswith("bias")):
            return None
        value = torch.cat([torch.zeros_like(like) if part is None else part for part in parts])
    if value is None and name.startswith("norm."):  # of models that pool before their last norm
        value, _ = found_tensor(given, f"fc_{name}")
    return value


def _embedded(reader: AttentionReader, image: Tensor) -> Float[Tensor, "1 t d"]:
    """What enters the first block."""
    seen: list[Tensor] = []
    with entering(reader, lambda number, hidden: seen.append(hidden) if number == 0 else None):
        reader.logits(image)
    return seen[0]


def _pooled_alike(model: VisionModel, reader: AttentionReader, images: Tensor) -> VisionModel:
    """The model with the pooling that gives the reader's features; InputError where none does."""
    features, logits = reader.read(images)
    errors = {}
    for pool in POOLS[1:]:
        if (pool.startswith("token") and not reader.prefix) or _width(model.config, pool) != features.shape[1]:
            continue
        model.config = replace(model.config, pool=pool)
        seen = model.features(images)
        errors[pool] = _error(seen, features)
        if not errors[pool] <= AGREES:
            continue
        if logits is not None and not _error(model.head(seen), logits) <= 10 * AGREES:
            raise InputError(
                f"{reader.source}: its features agree, its classifier is more than one linear map of them; take the "
                "model without its classifier, and fit one with --probe 1000"
            )
        return model
    found = ", ".join(f"{error:.1e} pooled by {pool}" for pool, error in errors.items())
    raise InputError(
        f"{reader.source} does more than a plain ViT does (pre-norm blocks of attention and a GELU MLP): its features "
        f"differ by {found or 'their width'}, more than {AGREES:g}; ablate it, which changes the model in place"
    )


def _width(config: ModelConfig, pool: str) -> int:
    return config.embed_dim * (2 if pool == "token_mean" else 1)


def _error(found: Tensor, right: Tensor) -> float:
    """Largest difference, as a fraction of the largest entry."""
    return float((found - right).abs().max() / right.abs().max().clamp(min=torch.finfo(right.dtype).tiny))
