"""Who is measured: our operators in each form, softmax attention, the textbook, and the public AFT packages."""

import importlib.util
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, files
from types import EllipsisType, ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from aft_lens.ops import BiasFactors, aft_conv, aft_full, aft_local, aft_simple
from aft_lens.ops.inspection import unsafe_convolution
from analyses.bench.operators.measure import Contestant

DIM, HEADS, RANK, WINDOW, CONV_WINDOW = 384, 6, 128, 32, 11
QUADRATIC_LIMIT = 6400
"""Contestants that hold T x T several times over stop here: beyond, they want more memory than a laptop has."""


def leaf(*shape: int, scale: float = 1.0, level: float = 0.0) -> Tensor:
    """A random input that wants a gradient."""
    return (torch.randn(shape) * scale + level).requires_grad_()


def tokens(batch: int, length: int) -> list[Tensor]:
    """Query, key and value, `b t d`."""
    return [leaf(batch, length, DIM) for _ in range(3)]


def softmax_attention(batch: int, length: int) -> Contestant:
    """torch's scaled_dot_product_attention over 6 heads of 64."""
    return Contestant(F.scaled_dot_product_attention, [leaf(batch, HEADS, length, DIM // HEADS) for _ in range(3)])


def textbook_attention(batch: int, length: int) -> Contestant:
    """softmax(Q K^T / sqrt c) V as written."""

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(-1) @ value

    return Contestant(run, softmax_attention(batch, length).inputs)


def simple(batch: int, length: int, *, causal: bool = False) -> Contestant:
    """AFT-simple."""
    return Contestant(lambda *x: aft_simple(*x, causal=causal), tokens(batch, length))


def full(batch: int, length: int, *, causal: bool = False) -> Contestant:
    """AFT-full with the factorized bias of Eq. 7."""
    factors = [leaf(length, RANK, scale=0.1) for _ in range(2)]
    return Contestant(
        lambda q, k, v, *w: aft_full(q, k, v, BiasFactors(*w), causal=causal), tokens(batch, length) + factors
    )


def full_free(batch: int, length: int) -> Contestant:
    """AFT-full with a T x T parameter."""
    return Contestant(aft_full, [*tokens(batch, length), leaf(length, length, scale=0.1)])


def local(batch: int, length: int, *, causal: bool = False, window: int = WINDOW) -> Contestant:
    """AFT-local with a factorized bias."""
    factors = [leaf(length, RANK, scale=0.1) for _ in range(2)]
    return Contestant(
        lambda q, k, v, *w: aft_local(q, k, v, BiasFactors(*w), window, causal=causal),
        tokens(batch, length) + factors,
    )


def conv(
    batch: int,
    grid: tuple[int, ...],
    *,
    heads: int = 32,
    window: int = CONV_WINDOW,
    level: float = 0.0,
    peak: float = 0.0,
    form: str = "auto",
    causal: bool = False,
) -> Contestant:
    """AFT-conv over a grid, biases N(level, 0.1^2), keys N(0, 1) with `peak` added to the one in the middle."""
    key = torch.randn(batch, heads, *grid)
    middle: tuple[EllipsisType | int, ...] = (..., *(side // 2 for side in grid))
    key[middle] += peak
    inputs = [
        leaf(batch, heads, DIM // heads, *grid),
        key.requires_grad_(),
        leaf(batch, heads, DIM // heads, *grid),
        leaf(heads, *(window for _ in grid), scale=0.1, level=level),
    ]
    return Contestant(lambda *x: aft_conv(*x, implementation=form, causal=causal), inputs)


def unsafe_conv(batch: int, grid: tuple[int, ...], *, heads: int, level: float, peak: float = 0.0) -> Contestant:
    """Eq. 6's own sum (everything, plus a convolution with e^w - 1) in the same code, wherever it cancels."""

    class Unsafe(Contestant):
        def __call__(self) -> None:
            with unsafe_convolution():
                super().__call__()

    safe = conv(batch, grid, heads=heads, level=level, peak=peak, form="convolution")
    return Unsafe(safe.run, safe.inputs)


def written_out_conv(batch: int, grid: tuple[int, ...], *, heads: int, level: float, peak: float = 0.0) -> Contestant:
    """Eq. 6 as one would write it in PyTorch: global sum, conv2d with expm1, autograd."""

    def run(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        weight = torch.exp(key - key.amax((2, 3), keepdim=True)).unsqueeze(2)
        mixed = torch.cat([weight * value, weight], 2)
        image = mixed.transpose(1, 2).flatten(0, 1)
        moved = F.conv2d(image, torch.expm1(bias).unsqueeze(1), padding=bias.shape[-1] // 2, groups=heads)
        total = moved.view(len(key), -1, *key.shape[1:]).transpose(1, 2) + mixed.sum((3, 4), keepdim=True)
        return torch.sigmoid(query) * total[:, :, :-1] / total[:, :, -1:]

    return Contestant(run, conv(batch, grid, heads=heads, level=level, peak=peak).inputs)


def module_of(distribution: str, ending: str) -> ModuleType | None:
    """One file of an installed distribution, without the package around it; None where it is not installed."""
    try:
        found = [file for file in files(distribution) or [] if str(file).endswith(ending)]
    except PackageNotFoundError:
        return None
    spec = importlib.util.spec_from_file_location(distribution.replace("-", "_"), str(found[0].locate()))
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def aft_pytorch_full(batch: int, length: int) -> Contestant | None:
    """aft-pytorch's AFTFull with identity projections (the core operator alone)."""
    module = module_of("aft-pytorch", "aft_pytorch/aft_pytorch.py")
    if module is None:
        return None
    layer = module.AFTFull(length, DIM, hidden_dim=DIM)
    for name in ("to_q", "to_k", "to_v", "project"):
        setattr(layer, name, torch.nn.Identity())
    return Contestant(lambda x, _w: layer(x), [leaf(batch, length, DIM), layer.wbias])


def labml_local(batch: int, length: int) -> Contestant | None:
    """labml-nn's AFTLocal, causal as it ships, with identity projections."""
    module = module_of("labml-nn", "transformers/aft/__init__.py")
    if module is None:
        return None
    layer = module.AFTLocal(DIM, length, WINDOW)
    for name in ("query", "key", "value", "output"):
        setattr(layer, name, torch.nn.Identity())
    mask = torch.ones(length, length, dtype=torch.bool).tril().unsqueeze(-1)
    inputs = [leaf(length, batch, DIM) for _ in range(3)]
    return Contestant(lambda q, k, v, _w: layer(query=q, key=k, value=v, mask=mask), [*inputs, layer.pos_bias])


CURVES: dict[str, tuple[Callable[[int], Contestant | None], int | None]] = {
    "simple": (lambda t: simple(1, t), None),
    "simple_causal": (lambda t: simple(1, t, causal=True), None),
    "local": (lambda t: local(1, t), None),
    "local_causal": (lambda t: local(1, t, causal=True), None),
    "conv": (lambda t: conv(1, (round(t**0.5),) * 2), None),
    "full_factorized": (lambda t: full(1, t), None),
    "full_factorized_causal": (lambda t: full(1, t, causal=True), None),
    "full_free": (lambda t: full_free(1, t), QUADRATIC_LIMIT),
    "softmax_attention": (lambda t: softmax_attention(1, t), None),
    "textbook_attention": (lambda t: textbook_attention(1, t), QUADRATIC_LIMIT),
    "aft_pytorch_full": (lambda t: aft_pytorch_full(1, t), QUADRATIC_LIMIT),
    "labml_local_causal": (lambda t: labml_local(1, t), QUADRATIC_LIMIT),
}
"""Name: (how to make it at a length, the longest it is run at). Batch 1, d = 384."""
