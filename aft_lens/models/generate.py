"""Symbols that a decoder draws one after another, by the state of its mixers (O(d), or O(s d), a step)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from aft_lens.layers.memory import Place
from aft_lens.models.decoder import Decoder


@dataclass(frozen=True)
class Sampling:
    """How a symbol is drawn. Raises ValueError on values that draw none."""

    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most probable symbol."""
    top_k: int = 0
    """Only so many of the most probable symbols; 0 is all."""
    top_p: float = 1.0
    """Only the most probable symbols that together have this probability (nucleus sampling)."""

    def __post_init__(self) -> None:
        """Check every value."""
        if not self.temperature >= 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature and top_k must be 0 or more and top_p above 0 and at most 1, got {self.temperature}, "
                f"{self.top_k} and {self.top_p}"
            )

    def probabilities(self, logits: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """What symbols are drawn with: first temperature, then top-k, then top-p of what is left."""
        logits = logits.float()
        if self.temperature == 0:
            return torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
        logits = logits / self.temperature
        if 0 < self.top_k < logits.shape[1]:
            least = logits.topk(self.top_k, dim=1).values[:, -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        share = logits.softmax(1)
        if self.top_p == 1:
            return share
        ordered, place = share.sort(1, descending=True)
        ordered *= ordered.cumsum(1) - ordered < self.top_p  # what comes before a symbol has not reached it yet
        return torch.zeros_like(share).scatter_(1, place, ordered / ordered.sum(1, keepdim=True))


class Reader:
    """A decoder that reads one symbol a call, `b` sequences at a time, and gives logits `b n` of each one's next.

    `capture` replays the step as a CUDA graph, with its small operations compiled: for mixers whose state is constant.
    Raises ValueError for a mixer that cannot read one symbol at a time, and on `capture` where no graph can be.
    """

    def __init__(self, model: Decoder, batch: int, *, capture: bool = False) -> None:
        self.model, self.position = model.eval(), 0
        self.device = model.pos_embed.device
        self.memories = model.begin(batch)
        self._graph: torch.cuda.CUDAGraph | None = None
        if capture:
            if self.device.type != "cuda" or not all(memory.constant for memory in self.memories):
                raise ValueError(
                    f"capture needs a CUDA device and a mixer of constant state, got {self.device} and "
                    f"{model.config.mixer}"
                )
            self._capture(batch)

    @torch.no_grad()
    def __call__(self, symbols: Int[Tensor, "b"]) -> Float[Tensor, "b n"]:
        """Logits after one more symbol. Raises ValueError past the model's length."""
        if self.position >= self.model.config.length:
            raise ValueError(f"the model reads {self.model.config.length} symbols, and no more")
        self.position += 1
        if self._graph is None:
            return self.model.step(symbols, self.memories, Place.at(self.position - 1, self.device))
        self._symbols.copy_(symbols)
        self._graph.replay()
        return self._logits

    @torch.no_grad()
    def _capture(self, batch: int) -> None:
        """Record a step, warmed up on memories that are thrown away."""
        self._symbols = torch.zeros(batch, dtype=torch.long, device=self.device)
        place = Place(torch.zeros(1, dtype=torch.long, device=self.device), 0)
        spare = self.model.begin(batch)
        for memory in (*self.memories, *spare):
            memory.fused = True
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.model.step(self._symbols, spare, place)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._logits = self.model.step(self._symbols, self.memories, place)
            place.index.add_(1)


@torch.no_grad()
def generate(
    model: Decoder,
    prompt: Int[Tensor, "b p"],
    length: int,
    *,
    sampling: Sampling = Sampling(),
    seed: int = 0,
    done: Callable[[int], object] = lambda count: None,
) -> Int[Tensor, "b length"]:
    """Continue each prompt to `length` symbols, itself included; an empty prompt of b rows starts b sequences.

    Beyond the model's length the second half of what is there is read again, in place of what came before it. The
    draws depend on the seed alone. `done` is called after each symbol with how many there are. Raises ValueError on a
    length that leaves nothing to draw, and on symbols that the model has not.
    """
    given, vocabulary = prompt.shape[1], model.config.vocab_size
    if length <= given or not len(prompt):
        raise ValueError(f"length must be above the prompt's {given} symbols, got {length} (and {len(prompt)} prompts)")
    if given and not 0 <= int(prompt.min()) <= int(prompt.max()) < vocabulary:
        raise ValueError(f"prompt must be symbols of 0 to {vocabulary - 1}")
    device = model.pos_embed.device
    draws = torch.Generator(device).manual_seed(seed)
    found = torch.full((len(prompt), length + 1), model.config.start, device=device)  # behind the start
    found[:, 1 : given + 1] = prompt
    capture = device.type == "cuda" and all(memory.constant for memory in model.begin(1))
    reader, read = Reader(model, len(prompt), capture=capture), 0
    for place in range(1, length + 1):
        if reader.position == model.config.length:
            reader, read = Reader(model, len(prompt), capture=capture), place - model.config.length // 2 - 1
        while read < place:
            logits = reader(found[:, read])
            read += 1
        if place > given:
            found[:, place] = torch.multinomial(sampling.probabilities(logits), 1, generator=draws)[:, 0]
        done(place)
    return found[:, 1:]
