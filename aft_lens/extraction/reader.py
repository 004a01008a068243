"""A ViT of any library as a stack of attention layers over one grid: read its weights, check them, replace them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.extraction.preprocessing import Preprocessing

AttentionSink = Callable[[int, Tensor], None]
"""Called with a layer's number and its weights, `b h t s`, prefix tokens first."""
AttentionEdit = Callable[[int, Tensor], Tensor]
"""Given a layer's number and its weights, returns the weights to use."""
Remix = Callable[[int, Tensor, Tensor], Tensor | None]
"""Given a layer's number, its input `b t d` and its weights `b h t s`, returns what its heads read, `b t d` with the
heads side by side, in place of what they did; None leaves the layer as it is."""
HEADS = ("head", "heads", "classifier", "cls_classifier")
"""What libraries call a ViT's classifier."""
TOLERANCE = 1e-4
"""Largest error of a recomputed output, as a fraction of the output's largest entry."""


class AttentionReader(ABC):
    """One library's ViT: its attention modules, its token layout, and how an output follows from the weights.

    `layers` are the attention modules in order, `grid` the patches (rows, columns), `prefix` the tokens before them
    (class, distillation, registers), `preprocessing` how images must come, where that is known, `data` the data set
    that the model was trained on, where it is one of ours, and `trained_grid` the patches that its position embeddings
    were trained for: they are interpolated where `grid` is another. Subclasses say how to expose the weights, what the
    values are that they mix, and what a layer makes of the mixture.
    """

    patches_read: bool = True
    """False: the class token alone reads others, as in class attention; a patch's row of weights is its own."""

    def __init__(
        self,
        source: str,
        model: nn.Module,
        layers: Sequence[nn.Module],
        *,
        grid: tuple[int, int],
        prefix: int,
        num_heads: int,
        image_size: tuple[int, int],
        in_chans: int = 3,
        preprocessing: Preprocessing | None = None,
        data: str | None = None,
        trained_grid: tuple[int, int] | None = None,
    ) -> None:
        if not layers:
            raise ValueError(f"{source}: no attention layers were found")
        self.source = source
        self.model = model
        self.layers = list(layers)
        self.grid = grid
        self.prefix = prefix
        self.num_heads = num_heads
        self.image_size = image_size
        self.in_chans = in_chans
        self.preprocessing = preprocessing
        self.data = data
        self.trained_grid = trained_grid or grid

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @abstractmethod
    def exposed(self, sink: AttentionSink) -> AbstractContextManager[None]:
        """Inside the block, forward passes are unfused and every layer's weights go to `sink`."""

    @abstractmethod
    def values(self, layer: int, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b h s c"]:
        """What the heads of attention module `layer` mix, for its input x."""

    @abstractmethod
    def project(self, layer: int, x: Float[Tensor, "b t d"], mixed: Float[Tensor, "b t d"]) -> Tensor:
        """The output of attention module `layer` for its input x, were `mixed` what its heads read, side by side."""

    def queries_keys(
        self, layer: int, x: Float[Tensor, "b t d"]
    ) -> tuple[Float[Tensor, "b h t c"], Float[Tensor, "b h s c"]]:
        """Queries, scaled, and keys of attention module `layer` for its input x: weights are softmax(Q K').

        Raises ValueError where a library's adapter does not say them, or where there is more in the logits.
        """
        raise ValueError(
            f"{self.source}: queries and keys of {type(self.layers[layer]).__name__} are not read; plain attention of "
            "timm, torchvision, transformers and ours has them"
        )

    @contextmanager
    def inputs(self, sink: AttentionSink) -> Iterator[None]:
        """Inside the block, what enters every attention module, `b t d`, goes to `sink` with the layer's number."""

        def read(number: int) -> Callable[..., None]:
            return lambda _module, args, kwargs: sink(number, _input(args, kwargs))

        with ExitStack() as stack:
            for number, module in enumerate(self.layers):
                stack.callback(module.register_forward_pre_hook(read(number), with_kwargs=True).remove)
            yield

    def mix(self, layer: int, x: Float[Tensor, "b t d"], attention: Float[Tensor, "b h t s"]) -> Tensor:
        """The output of attention module `layer` for its input x, were its weights `attention`."""
        return self.project(layer, x, spread(attention, self.values(layer, x)))

    def logits(self, images: Tensor) -> Tensor:
        """Run the model; the class logits, or the library's main output where it has no classifier."""
        return _tensor(self.model(images))

    def read(self, images: Tensor) -> tuple[Float[Tensor, "b d"], Tensor | None]:
        """Run the model once: what a classifier reads, and the class logits.

        Features are the input of the model's own classifier. A model that has none gives no logits; its features are
        the class token, or without one the mean of the patches.
        """
        found = (getattr(self.model, name, None) for name in HEADS)
        head = next((module for module in found if isinstance(module, nn.Module)), None)
        if head is None:
            tokens = self.logits(images)
            return (tokens if tokens.ndim == 2 else tokens[:, 0] if self.prefix else tokens.mean(1)), None
        seen: list[Tensor] = []
        with head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0])):
            logits = self.logits(images)
        return seen[0], None if isinstance(head, nn.Identity) else logits

    def features(self, images: Tensor) -> Float[Tensor, "b d"]:
        """What a classifier reads; see `read`."""
        return self.read(images)[0]

    @contextmanager
    def edited(self, edit: AttentionEdit) -> Iterator[None]:
        """Inside the block, every layer mixes with `edit(layer, weights)` in place of its own weights."""

        def mixed(layer: int, x: Tensor, attention: Tensor) -> Tensor | None:
            changed = edit(layer, attention)
            return None if changed is attention else spread(changed, self.values(layer, x))

        with self.remixed(mixed):
            yield

    @contextmanager
    def remixed(self, change: Remix) -> Iterator[None]:
        """Inside the block, every layer's heads read what `change(layer, x, weights)` says."""
        current: dict[int, Tensor] = {}

        def replace(number: int) -> Callable[..., Any]:
            def hook(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
                x = _input(args, kwargs)
                mixed = change(number, x, current.pop(number))
                if mixed is None:
                    return output
                changed = self.project(number, x, mixed)
                return (changed, *output[1:]) if isinstance(output, tuple) else changed

            return hook

        with ExitStack() as stack:
            for number, module in enumerate(self.layers):
                stack.callback(module.register_forward_hook(replace(number), with_kwargs=True).remove)
            stack.enter_context(self.exposed(current.__setitem__))
            yield

    @torch.no_grad()
    def verify(self, images: Tensor, tolerance: float = TOLERANCE, *, patches: bool = True) -> float:
        """Recompute every attention output from the extracted weights and return the largest relative error.

        The model first runs as it is (fused where it is), then exposed; each layer's own output must equal `mix` of
        its own input and the extracted weights. Raises RuntimeError if a layer's weights never came, are of the wrong
        shape or do not reproduce its output, and, unless `patches` is False, ValueError where patches read nothing.
        """
        if patches and not self.patches_read:
            raise ValueError(
                f"{self.source}: the class token alone reads others here, so nothing can be said by offset; `aft-lens "
                "attend` shows what it reads in an image"
            )
        seen: dict[int, tuple[Tensor, Tensor]] = {}
        weights: dict[int, Tensor] = {}

        def remember(number: int) -> Callable[..., None]:
            def hook(_module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
                seen[number] = (_input(args, kwargs), _tensor(output))

            return hook

        with ExitStack() as stack:
            for number, module in enumerate(self.layers):
                stack.callback(module.register_forward_hook(remember(number), with_kwargs=True).remove)
            self.logits(images)
        with self.exposed(weights.__setitem__):
            self.logits(images)
        tokens = self.prefix + self.grid[0] * self.grid[1]
        expected = (len(images), self.num_heads, tokens, tokens)
        worst = 0.0
        for number in range(len(self.layers)):
            if number not in weights or number not in seen:
                raise RuntimeError(f"{self.source}: the weights of attention layer {number} never came by")
            if tuple(weights[number].shape) != expected:
                raise RuntimeError(
                    f"{self.source}: weights of layer {number} have shape {tuple(weights[number].shape)}, expected "
                    f"{expected} for grid {self.grid} and {self.prefix} prefix tokens; give `grid` and `prefix`"
                )
            x, output = seen[number]
            error = (self.mix(number, x, weights[number]) - output).abs().max().item()
            error /= output.abs().max().item() or 1.0
            if not error <= tolerance:  # NaN, too, is no agreement
                raise RuntimeError(
                    f"{self.source}: outputs of layer {number} recomputed from the weights differ by {error:.2g}, more "
                    f"than {tolerance:.2g}; this model does more with its weights than was looked for"
                )
            worst = max(worst, error)
        return worst


def spread(attention: Float[Tensor, "b h t s"], value: Float[Tensor, "b h s c"]) -> Float[Tensor, "b t d"]:
    """Mix the values of each head with its weights and lay the heads side by side."""
    mixed = attention.to(value.dtype) @ value
    return mixed.transpose(1, 2).flatten(2)


def _tensor(output: Any) -> Tensor:
    """The main tensor of a module's output."""
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    return logits if isinstance(logits, Tensor) else output[0]


def _input(args: Any, kwargs: Any) -> Tensor:
    """The hidden states that a module was called with."""
    if args:
        return args[0]
    return next(kwargs[name] for name in ("hidden_states", "x", "query") if name in kwargs)
