"""One autoregressive skeleton for every causal mixer: the models of Tables 2 and 4."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from aft_lens.layers.block import Block
from aft_lens.layers.mixers.aft_full import AFTFull
from aft_lens.layers.mixers.attention import Attention
from aft_lens.layers.mixers.linear_attention import LinearAttention, performer
from aft_lens.layers.mixers.reformer import Reformer
from aft_lens.layers.mixers.sparse_attention import sparse_attention
from aft_lens.layers.mixers.synthesizer import Synthesizer
from aft_lens.layers.position_bias import pair_bias
from aft_lens.models.initialize import initialize

AFT_MIXERS = ("aft_full", "aft_local", "aft_simple")
CAUSAL_MIXERS = (
    "attention", *AFT_MIXERS, "synthesizer", "linear_attention", "performer", "reformer", "local_attention",
    "strided_attention",
)  # fmt: skip
"""Mixers of a decoder; reformer needs the `baselines` extra."""


@dataclass(frozen=True)
class DecoderConfig:
    """Architecture of a decoder; the defaults are Table 4's. Raises ValueError on a value that cannot be built."""

    mixer: str = "aft_local"
    """One of `CAUSAL_MIXERS`."""
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
        if self.mixer not in CAUSAL_MIXERS:
            raise ValueError(f"mixer must be one of {CAUSAL_MIXERS}, got {self.mixer!r}")
        sizes = (self.vocab_size, self.length, self.embed_dim, self.depth, self.num_heads, self.window_size)
        if min(sizes) < 1:
            raise ValueError(
                f"vocab_size, length, embed_dim, depth, num_heads and window_size must be 1 or more: {self}"
            )
        if self.grid and torch.Size(self.grid).numel() != self.length:
            raise ValueError(f"grid must hold length = {self.length} positions, got {self.grid}")


class Decoder(nn.Module):
    """Predicts every symbol from those before it, by blocks around any causal mixer (Sec. 5.1 and 5.2)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.length, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(config.embed_dim, causal_mixer(config), mlp_ratio=config.mlp_ratio) for _ in range(config.depth)
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


def causal_mixer(config: DecoderConfig) -> nn.Module:
    """The token mixer of a decoder's block."""
    dim, heads, window = config.embed_dim, config.num_heads, config.window_size
    if config.mixer in AFT_MIXERS:
        near = window if config.mixer == "aft_local" else None
        pair = None
        if config.mixer != "aft_simple":
            pair = pair_bias(config.position_bias, config.length, config.bias_rank, near)
        return AFTFull(dim, pair, window_size=near, causal=True)
    if config.mixer == "attention":
        return Attention(dim, heads, causal=True)
    if config.mixer == "synthesizer":
        return Synthesizer(dim, heads, config.length, causal=True)
    if config.mixer == "linear_attention":
        return LinearAttention(dim, heads, causal=True)
    if config.mixer == "performer":
        return performer(dim, heads, causal=True)
    if config.mixer == "reformer":
        return Reformer(dim, heads, bucket_size=window, causal=True)
    pattern = "local2d" if config.mixer == "local_attention" else "strided"
    grid = config.grid or (config.length,)
    return sparse_attention(pattern, dim, heads, grid, window, class_token=False, causal=True)
