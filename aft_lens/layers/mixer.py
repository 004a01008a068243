"""What a token mixer is made from, what it needs of the model around it, and the registry that has them all by name."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from aft_lens.ops.check import check_floating
from aft_lens.registry import Registry


@dataclass(frozen=True)
class MixerSpec:
    """Everything that a model says to one of its mixers."""

    dim: int
    """Token width d."""
    num_heads: int
    """Attention heads, or AFT-conv's h position biases."""
    grid: tuple[int, ...]
    """Sides of the training grid in tokens: (rows, columns), or (length,) of a sequence."""
    window_size: int
    """Side or width in tokens; what it is of, each mixer says."""
    prefix: int = 0
    """Tokens without a place before those of the grid."""
    causal: bool = False
    """Sources up to the target alone."""
    position_bias: str = ""
    """Kind of parametrization; the mixer's default if empty."""
    bias_rank: int = 128
    """d' of Eq. 7."""
    temperature: float = 0.5
    """tau of Eq. 10."""
    straight_through: bool = False
    """Eq. 10's forward pass with the sample's one-hot."""
    use_query: bool = True
    """False leaves the query out (Table 12)."""
    outside: str = "global"
    """AFT-conv beyond its window: global, or none."""
    bias_start: float = 0.05
    """Standard deviation that w' of Eq. 8 starts with."""
    positions: int = 1
    """Positions a head of AFT-conv's biases that are trained with a fixed number of them."""
    keep: int | None = None
    """Offsets that each head keeps; None where biases are dense."""
    heads: tuple[str, ...] = ()
    """What each head of `replaced_attention` is."""

    @property
    def length(self) -> int:
        """Tokens, the prefix included."""
        return math.prod(self.grid) + self.prefix


Check = Callable[[MixerSpec], str | None]
"""What is wrong with a specification, as "FIELD must ..., got ..."; None if nothing is."""


@dataclass(frozen=True)
class Mixer:
    """How a mixer is built, and its traits: models, recipes, analyses and the app ask for these and for no name."""

    build: Callable[[MixerSpec], nn.Module]
    """The module; it takes (x `b t d`, grid) and returns `b t d`."""
    label: str
    """Its name in words, for pages and tables."""
    pooled: bool = False
    """No class token and no position embedding, average pooling before the classifier (Sec. 5.3)."""
    any_size: bool = False
    """Takes images of other sizes than the training one."""
    causal: bool = False
    """Has a causal form, and so serves in a decoder."""
    steps: bool = False
    """Reads one token at a time: its module has `begin(batch, length)`, a Memory, and `step(x, memory, place)`."""
    weights: Literal["attention", "offset", "pair", "replaced", ""] = ""
    """What its weights can be looked at by: attention of each image; position biases by offset, or by pair; of
    replaced heads the offsets in their place."""
    position_bias: str = ""
    """Default parametrization of w; empty where there is none."""
    any_prefix: bool = False
    """Takes any number of tokens before the patches, none included."""
    indexable: bool = False
    """Can be pruned to a few offsets a head."""
    check: Check = lambda spec: None
    """Further conditions on its specification."""
    fits_cuda_graphs: Callable[[MixerSpec], bool] = lambda spec: True
    """Whether a training step can be captured: nothing that the host must see at every step."""


def check_heads(dim: int, num_heads: int) -> None:
    """Raise ValueError unless a width of `dim` can be split into so many heads."""
    if num_heads < 1 or dim < 1 or dim % num_heads:
        raise ValueError(f"embed_dim must be a multiple of num_heads, both 1 or more, got {dim} and {num_heads}")


def check_input(x: Tensor, proj: nn.Linear | None) -> None:
    """Raise ValueError, naming x, unless it is what a mixer takes that ends with `proj`.

    That is a floating `b t d` with one token or more (b may be 0), of the weights' width and, outside autocast, dtype.
    """
    check_floating(x=x)
    if x.ndim != 3 or not x.shape[1]:
        raise ValueError(f"x must be tokens (b t d) with t of 1 or more, got shape {tuple(x.shape)}")
    if proj is None:
        return
    if x.shape[2] != proj.weight.shape[0]:
        raise ValueError(f"x must have {proj.weight.shape[0]} channels like the layer, got shape {tuple(x.shape)}")
    if x.dtype != proj.weight.dtype and not torch.is_autocast_enabled(x.device.type):
        dtype = str(proj.weight.dtype).removeprefix("torch.")
        raise ValueError(f"x must be {dtype} like the layer's weights, got {x.dtype}; use x.to(torch.{dtype})")


MIXERS: Registry[Mixer] = Registry("mixer", "aft_lens.mixers")
"""Every mixer; the modules of `aft_lens.layers.mixers` register themselves, other packages by entry points."""
