"""One autoregressive skeleton for every causal mixer: the models of Tables 2 to 6."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import aft_lens.layers.mixers  # noqa: F401 - they register themselves
from aft_lens.layers.block import Block
from aft_lens.layers.memory import Memory, Place
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec
from aft_lens.models.initialize import initialize

RANGES: dict[str, tuple[float, float]] = {
    "vocab_size": (1, 65_536), "length": (1, 2**20), "embed_dim": (1, 65_536), "depth": (1, 1024),
    "num_heads": (1, 65_536), "mlp_ratio": (2**-10, 256), "window_size": (1, 2**20), "bias_rank": (1, 65_536),
    "dropout": (0, 0.99),
}  # fmt: skip
"""Least and largest values, ends included, far beyond any model that trains: what lies outside is a slip or a trap."""


@dataclass(frozen=True)
class DecoderConfig:
    """Architecture of a decoder; the defaults are those of Table 4. Raises ValueError on what cannot be built."""

    mixer: str = "aft_local"
    """Token mixer with a causal form, by its name in the registry."""
    vocab_size: int = 256
    """Symbols: bytes of text, or levels of a pixel's channel."""
    length: int = 1024
    """Longest sequence, in symbols."""
    embed_dim: int = 512
    """Token width d."""
    depth: int = 12
    """Blocks."""
    num_heads: int = 8
    """Attention heads; AFT has none."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over d."""
    window_size: int = 32
    """AFT-local: s of Eq. 4. local_attention: side of the memory block. strided_attention: the stride on a line.
    reformer: bucket length. All in symbols."""
    position_bias: str = "factorized"
    """AFT-full and AFT-local: factorized (Eq. 7) or free (the "non factorized" one of Table 3)."""
    bias_rank: int = 256
    """d' of Eq. 7: 256 in Sec. 5.2, 64 in Sec. 5.1."""
    dropout: float = 0.1
    """Share of the embeddings and of each branch's outputs that training sets to 0."""
    grid: tuple[int, ...] = ()
    """Rows, columns and channels of an image that the symbols spell in raster order; a line if left out."""
    name: str = ""
    """Registered decoder that the other fields start from; empty for none."""

    def __post_init__(self) -> None:
        """Check every value that a decoder is built from."""
        object.__setattr__(self, "grid", tuple(self.grid))
        if self.mixer not in MIXERS or not self.traits.causal:
            raise ValueError(f"mixer must be one of {', '.join(causal_mixers())}, got {self.mixer!r}")
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:  # NaN is in no range
                raise ValueError(f"{name} must be from {least:g} to {most:g}, got {getattr(self, name)}")
        if self.position_bias not in ("factorized", "free"):
            raise ValueError(f"position_bias must be factorized or free, got {self.position_bias!r}")
        if self.grid and torch.Size(self.grid).numel() != self.length:
            raise ValueError(f"grid must hold length = {self.length} positions, got {self.grid}")

    @property
    def traits(self) -> Mixer:
        """What the mixer needs and can."""
        return MIXERS[self.mixer]

    @property
    def start(self) -> int:
        """The symbol that stands before every sequence; none is ever predicted to be it."""
        return self.vocab_size

    def spec(self) -> MixerSpec:
        """What every block's mixer is made from; channels of a pixel lie side by side in its row."""
        rows, *rest = self.grid or (self.length,)
        return MixerSpec(
            dim=self.embed_dim,
            num_heads=self.num_heads,
            grid=(rows, torch.Size(rest).numel()) if rest else (rows,),
            window_size=self.window_size,
            causal=True,
            position_bias=self.position_bias,
            bias_rank=self.bias_rank,
        )


def causal_mixers() -> list[str]:
    """Names of the mixers that serve in a decoder; reformer needs the `baselines` extra."""
    return [name for name in MIXERS if MIXERS[name].causal]


class Decoder(nn.Module):
    """Predicts every symbol from those before it, by pre-norm blocks around any causal mixer (Sec. 5.1 and 5.2).

    Positions are learned; one embedding and one head serve all channels of an image.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size + 1, config.embed_dim)  # the last one is the start
        self.pos_embed = nn.Parameter(torch.zeros(1, config.length, config.embed_dim))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            Block(
                config.embed_dim,
                config.traits.build(config.spec()),
                mlp_ratio=config.mlp_ratio,
                dropout=config.dropout,
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.head = nn.Linear(config.embed_dim, config.vocab_size)
        initialize(self, self.embed.weight, self.pos_embed)

    def forward(self, symbols: Int[Tensor, "b t"]) -> Float[Tensor, "b t n"]:
        """Logits of each position's next symbol. Raises ValueError if t is above `length`.

        Masks of local_attention and strided_attention, and AFT's biases, are those of the first t positions.
        """
        length = symbols.shape[1]
        if length > self.config.length:
            raise ValueError(f"symbols must be at most {self.config.length} long, got {length}")
        x = self.dropout(self.embed(symbols) + self.pos_embed[:, :length])
        for block in self.blocks:
            x = block(x, (length,))
        return self.head(self.norm(x))

    def begin(self, batch: int) -> list[Memory]:
        """What each block remembers of `batch` sequences before their first symbol, on the model's device.

        Raises ValueError for a mixer that has no form of one symbol at a time.
        """
        if not self.config.traits.steps:
            able = ", ".join(name for name in causal_mixers() if MIXERS[name].steps)
            raise ValueError(f"mixer {self.config.mixer} cannot read one symbol at a time, which these can: {able}")
        mixers: list[Any] = [block.mixer for block in self.blocks]
        return [mixer.begin(batch, self.config.length) for mixer in mixers]

    def step(self, symbols: Int[Tensor, "b"], memories: list[Memory], place: Place) -> Float[Tensor, "b n"]:
        """Logits of the next symbol after one more was read at `place`; the memories change in place.

        The same as the last position of `forward` over all symbols that were read.
        """
        x = self.embed(symbols) + self.pos_embed[0].index_select(0, place.index)
        blocks: list[Any] = list(self.blocks)
        for block, memory in zip(blocks, memories, strict=True):
            x = block.step(x, memory, place)
        return self.head(self.norm(x))
