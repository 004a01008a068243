"""One autoregressive skeleton for every causal mixer: the models of Tables 2 and 4."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

import aft_lens.layers.mixers  # noqa: F401 - they register themselves
from aft_lens.layers.block import Block
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec
from aft_lens.models.initialize import initialize


@dataclass(frozen=True)
class DecoderConfig:
    """Architecture of a decoder; the defaults are those of Table 4 but for `bias_rank` (256 there).

    Raises ValueError on a value that cannot be built.
    """

    mixer: str = "aft_local"
    """Token mixer with a causal form, by its name in the registry."""
    vocab_size: int = 256
    """Symbols: bytes of enwik8, or levels of a pixel's channel."""
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
    """AFT-full and AFT-local: factorized (Eq. 7) or free."""
    bias_rank: int = 128
    """d' of Eq. 7."""
    grid: tuple[int, ...] = ()
    """Sides of an image that the symbols spell in raster order, for local_attention and strided_attention; a line if
    left out."""

    def __post_init__(self) -> None:
        """Check every value that a decoder is built from."""
        if not self.traits.causal:
            raise ValueError(f"mixer must be one of {', '.join(causal_mixers())}, got {self.mixer!r}")
        sizes = (self.vocab_size, self.length, self.embed_dim, self.depth, self.num_heads, self.window_size)
        if min(sizes) < 1:
            raise ValueError(
                f"vocab_size, length, embed_dim, depth, num_heads and window_size must be 1 or more: {self}"
            )
        if self.grid and torch.Size(self.grid).numel() != self.length:
            raise ValueError(f"grid must hold length = {self.length} positions, got {self.grid}")

    @property
    def traits(self) -> Mixer:
        """What the mixer needs and can."""
        return MIXERS[self.mixer]

    def spec(self) -> MixerSpec:
        """What every block's mixer is made from."""
        return MixerSpec(
            dim=self.embed_dim,
            num_heads=self.num_heads,
            grid=self.grid or (self.length,),
            window_size=self.window_size,
            causal=True,
            position_bias=self.position_bias,
            bias_rank=self.bias_rank,
        )


def causal_mixers() -> list[str]:
    """Names of the mixers that serve in a decoder; reformer needs the `baselines` extra."""
    return [name for name in MIXERS if MIXERS[name].causal]


class Decoder(nn.Module):
    """Predicts every symbol from those before it, by blocks around any causal mixer (Sec. 5.1 and 5.2)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.length, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, config.traits.build(config.spec()), mlp_ratio=config.mlp_ratio)
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
        x = self.embed(symbols) + self.pos_embed[:, :length]
        for block in self.blocks:
            x = block(x, (length,))
        return self.head(self.norm(x))
