"""The operators that `aft-lens bench gpu` compares, with their inputs and their reference."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend

from aft_lens.ops import PreparedBias, aft_conv, aft_indexed, prepare_bias, reference
from analyses.bench.gpu import contestants, line

DIM = 384
ATTENTION_HEADS = 6
CHECKED = 4
"""Images whose outputs are held to the reference."""
ATTENTION = ("sdpa", "sdpa_flash", "sdpa_cudnn", "textbook", "linear")
"""Attention of `ATTENTION_HEADS` heads."""


@dataclass(frozen=True)
class Case:
    """A shape and what is measured on it; heads and window are 0 for what has no position bias."""

    batch: int
    grid: tuple[int, int]
    heads: int
    window: int
    operators: tuple[str, ...]

    def inputs(self, operator: str, seed: int) -> list[Tensor]:
        """Random bfloat16 inputs, in the layout that each operator's layer hands over."""
        generator = torch.Generator("cuda").manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, device="cuda", generator=generator).bfloat16()

        b, t = self.batch, math.prod(self.grid)
        if operator in line.OPERATORS:
            return line.inputs(operator, (b, t, DIM), ATTENTION_HEADS, random)
        if operator in ("copy", *ATTENTION):
            return [random(b, ATTENTION_HEADS, t, DIM // ATTENTION_HEADS) for _ in range(3)]
        h, c = self.heads, DIM // self.heads
        query, value = (random(h, c, b, *self.grid).movedim(2, 0) for _ in range(2))
        key = random(h, b, *self.grid).transpose(0, 1)
        if operator == "depthwise":
            query, value = (random(b, *self.grid, h, c).movedim((3, 4), (1, 2)) for _ in range(2))
        if operator in ("indexed", "floor"):
            return [query, key, value, random(h, 1).float()]
        return [query, key, value, random(h, self.window, self.window).float()]

    def offset(self) -> Tensor:
        """An offset a head, going through the window."""
        return _offset(self.heads, self.window)


@lru_cache
def _offset(heads: int, window: int) -> Tensor:
    """Made once: in a measured graph its small kernels would count."""
    place = torch.arange(heads, device="cuda") * 7 % window**2
    side = torch.stack([place // window, place % window], dim=-1)
    return (side - window // 2).unsqueeze(1)


def _copy(case: Case, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Read as much and write as much as an operator of three inputs and one output: two copies."""
    query.clone()
    return value.clone()


def _floor(case: Case, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Copy as many bytes as the fewest that an AFT-conv of this shape moves: Q, K and V read, Y written."""
    return _moved([query, key, value], 3 * value.numel() + key.numel())


def floor_train(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """`_floor` of forward and backward: that again, Q, K, V and dY read, dQ, dK and dV written."""
    return _moved([query, key, value], 8 * value.numel() + 3 * key.numel())


def _moved(tensors: list[Tensor], elements: int) -> Tensor:
    """Read and write so many elements in all by copies of the largest of some tensors, the last copy in part."""
    largest = max(tensor.numel() for tensor in tensors)
    left = elements // 2
    for tensor in cycle(tensor for tensor in tensors if tensor.numel() == largest):
        copy = tensor.as_strided((min(left, largest),), (1,)).clone()  # the memory's order, whatever the shape's
        left -= largest
        if left <= 0:
            return copy
    raise ValueError("there is nothing to copy: no tensors came")


def _sdpa(case: Case, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value)


def _textbook(case: Case, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1) @ value


def _linear(case: Case, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Linear attention with elu + 1 features (Katharopoulos et al., 2020)."""
    q, k = F.elu(query) + 1, F.elu(key) + 1
    return (q @ (k.transpose(-1, -2) @ value)) / (q @ k.sum(-2).unsqueeze(-1))


def _aft_conv(case: Case, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return aft_conv(query, key, value, bias)


@lru_cache(maxsize=8)
def _kept(bias: Tensor, grid: tuple[int, int], dtype: torch.dtype) -> Tensor | PreparedBias:
    """Made in the call that warms up, as before a model's evaluation."""
    return prepare_bias(bias, grid, dtype)


def _prepared(case: Case, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return aft_conv(query, key, value, _kept(bias, case.grid, value.dtype))


def _indexed(case: Case, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    return aft_indexed(query, key, value, bias, case.offset())


def _eq6(case: Case, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Eq. 6 as printed but with exp(K): depth-wise convolutions of exp(w) - 1 and a global sum."""
    b, h, c, *grid = value.shape
    weight = torch.exp(key - key.amax((2, 3), keepdim=True)).unsqueeze(2)
    kernel, radius = torch.expm1(bias).to(value.dtype).unsqueeze(1), case.window // 2
    image = (weight * value).transpose(1, 2).reshape(b * c, h, *grid)
    num = F.conv2d(image, kernel, padding=radius, groups=h).view(b, c, h, *grid).transpose(1, 2)
    num = num + (weight * value).sum((3, 4), keepdim=True)
    den = F.conv2d(weight.squeeze(2), kernel, padding=radius, groups=h) + weight.squeeze(2).sum((2, 3), keepdim=True)
    return torch.sigmoid(query) * num / den.unsqueeze(2)


def _of_tensors(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda case, *tensors: run(*tensors)


def _on_a_line(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda case, *tensors: run(case.window, *tensors)


FORMS = ("masked", "flex", "depthwise")
"""AFT-conv from PyTorch's own parts."""
OPERATORS: dict[str, Callable[..., Tensor]] = {
    "copy": _copy,
    "sdpa": _sdpa,
    "sdpa_flash": _of_tensors(contestants.pinned(SDPBackend.FLASH_ATTENTION)),
    "sdpa_cudnn": _of_tensors(contestants.pinned(SDPBackend.CUDNN_ATTENTION)),
    "textbook": _textbook,
    "linear": _linear,
    "aft_conv": _aft_conv,
    "prepared": _prepared,
    "floor": _floor,
    "indexed": _indexed,
    "eq6": _eq6,
    "masked": _of_tensors(contestants.masked),
    "flex": _of_tensors(contestants.flex),
    "depthwise": _of_tensors(contestants.depthwise),
    **{name: _on_a_line(run) for name, run in line.OPERATORS.items()},
}


BACKENDS: dict[str, Callable[..., str]] = {"sdpa": contestants.backend_of, "masked": contestants.masked_backend}
"""What picks among attention's backends, by operator."""


def backend(operator: str, tensors: list[Tensor]) -> str | None:
    """The backend that PyTorch picks for an operator, and the one for training where it is another; None for none."""
    if operator not in BACKENDS:
        return None
    with torch.no_grad():
        forward = BACKENDS[operator](*tensors)
    with torch.enable_grad():
        trained = BACKENDS[operator](*(tensor.detach().requires_grad_() for tensor in tensors))
    return forward if forward == trained else f"{forward}, trained {trained}"


def error(case: Case, operator: str, tensors: list[Tensor]) -> float | None:
    """Relative error of the first images' output against float64; None for what is no form of AFT-conv.

    Grids above 28 x 28 are not checked: the reference holds T x T weights a head.
    """
    if operator in line.OPERATORS:
        return line.error(operator, case.window, tensors)
    if operator not in ("aft_conv", "prepared", "indexed", "eq6", *FORMS) or math.prod(case.grid) > 28 * 28:
        return None
    found = OPERATORS[operator](case, *tensors)[:CHECKED].double()
    query, key, value, bias = (tensor.double() for tensor in tensors)
    if operator == "indexed":
        side = case.window
        wide = bias.new_zeros(case.heads, side, side)
        place = (case.offset()[:, 0] + side // 2).unbind(-1)
        bias = wide.index_put((torch.arange(case.heads, device="cuda"), *place), bias[:, 0])
    right = reference.aft_conv(query[:CHECKED], key[:CHECKED], value[:CHECKED], bias)
    return float((found - right).norm() / right.norm())
