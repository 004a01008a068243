"""What a vision model is made of, as one frozen record."""

from dataclasses import dataclass

import aft_lens.layers.mixers  # noqa: F401 - they register themselves
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec

STEMS = ("patch", "conv")
POOLS = ("default", "token", "mean", "token_mean", "mean_norm")
RANGES: dict[str, tuple[float, float]] = {
    "img_size": (1, 4096), "patch_size": (1, 1024), "in_chans": (1, 256), "num_classes": (0, 1_000_000),
    "embed_dim": (1, 65_536), "depth": (1, 1024), "num_heads": (1, 65_536), "mlp_ratio": (2**-10, 256),
    "window_size": (1, 4096), "bias_rank": (1, 65_536), "temperature": (1e-9, 1e9), "bias_start": (0, 1e6),
    "drop_path": (0, 1), "prefix_tokens": (0, 4096), "norm_eps": (0, 1),
}  # fmt: skip
"""Least and largest values, ends included, far beyond any model that trains: what lies outside is a slip or a trap."""


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a vision model; the words are timm's. Raises ValueError on a value that cannot be built."""

    mixer: str = "aft_conv"
    """Token mixer, by its name in the registry (`aft-lens list` shows them)."""
    img_size: int = 224
    """Side of the square training image, in pixels."""
    patch_size: int = 16
    """Side of a patch, in pixels; the grid is img_size / patch_size on a side."""
    in_chans: int = 3
    """Image channels."""
    num_classes: int = 1000
    """Outputs of the classifier; 0 for none, the model then gives its features."""
    embed_dim: int = 192
    """Token width d."""
    depth: int = 12
    """Blocks."""
    num_heads: int = 3
    """Attention heads, or AFT-conv's h position biases."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over d."""
    window_size: int = 11
    """AFT-conv: side of the window (odd, in patches). AFT-local: s of Eq. 4 (in tokens). local_attention: side of
    the memory block (in patches). reformer: bucket length (in tokens)."""
    position_bias: str = "default"
    """free, factorized (Eq. 7), reparameterized (Eq. 8), single (Eq. 10), or the mixer's default; of AFT-conv also
    topk, hard_concrete, entmax, spaced (rivals of Eq. 10), and random and ring (one position a head, not learned)."""
    bias_rank: int = 128
    """d' of Eq. 7."""
    temperature: float = 0.5
    """tau of Eq. 10."""
    straight_through: bool = False
    """Eq. 10's forward pass with the sample's one-hot, its gradient with the soft sample."""
    bias_start: float = 0.05
    """Standard deviation that w' of Eq. 8 starts with; a short training hardly turns a start of 1
    (`analyses/results/start_sweep.json`)."""
    positions: int = 1
    """Positions a head that the biases topk and spaced have."""
    use_query: bool = True
    """False leaves the query out (Table 12)."""
    outside: str = "global"
    """AFT-conv beyond its window: global, or none (Sec. 5.3's ablation)."""
    stem: str = "patch"
    """patch: one strided convolution. conv: an overlapping 3x3 convolution before it, for small images."""
    drop_path: float = 0.0
    """Stochastic depth at the last block, growing linearly from 0."""
    prefix_tokens: int = 1
    """Tokens before the patches, class and registers, of mixers that are not pooled."""
    pool: str = "default"
    """What the classifier reads: token (the first), mean (of the patches), token_mean (both side by side), mean_norm
    (the mean before the last norm), or default: the token where there is one, else the mean."""
    norm_eps: float = 1e-6
    """Epsilon of the layer norms."""
    heads: tuple[str, ...] = ()
    """By block what each head of replaced_attention is, in words: attention, offsets:K, map, kernel, uniform, mean or
    zero; empty for attention alone, and for other mixers."""
    keep: tuple[int, ...] = ()
    """Offsets that each block's widest AFT-conv head keeps after pruning (0: pooling alone); empty: not pruned."""
    name: str = ""
    """Registered model that the other fields start from; empty for none."""

    def __post_init__(self) -> None:
        """Check every value that a model is built from."""
        object.__setattr__(self, "keep", tuple(self.keep))
        object.__setattr__(self, "heads", tuple(self.heads))
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:  # NaN is in no range
                raise ValueError(f"{name} must be from {least:g} to {most:g}, got {getattr(self, name)}")
        traits = self.traits  # ValueError on a name that is not registered
        if self.stem not in STEMS:
            raise ValueError(f"stem must be one of {STEMS}, got {self.stem!r}")
        if self.img_size % self.patch_size:
            raise ValueError(f"img_size must be a multiple of patch_size, got {self.img_size} and {self.patch_size}")
        if self.keep and not traits.indexable:
            raise ValueError(f"keep is for mixers that can be indexed, got keep={self.keep} with mixer {self.mixer!r}")
        if self.keep and (len(self.keep) != self.depth or min(self.keep) < 0):
            raise ValueError(f"keep must have a count of 0 or more for each of {self.depth} blocks, got {self.keep}")
        if self.heads and (len(self.heads) != self.depth or traits.weights != "replaced"):
            raise ValueError(
                f"heads must say what the heads of each of {self.depth} blocks of replaced_attention are, got "
                f"{len(self.heads)} blocks with mixer {self.mixer!r}"
            )
        if self.prefix_tokens != 1 and not traits.any_prefix:
            raise ValueError(f"prefix_tokens must be 1 for mixer {self.mixer!r}, got {self.prefix_tokens}")
        if self.pool not in POOLS or (self.pooling.startswith("token") and not self.prefix):
            raise ValueError(f"pool must be one of {POOLS}, with a token in it where there is one, got {self.pool!r}")
        for block in range(self.depth if self.heads else 1):
            if wrong := traits.check(self.spec(block)):
                raise ValueError(wrong)

    @property
    def traits(self) -> Mixer:
        """What the mixer needs and can."""
        return MIXERS[self.mixer]

    @property
    def grid_size(self) -> int:
        """Patches on a side at the training size."""
        return self.img_size // self.patch_size

    @property
    def prefix(self) -> int:
        """Tokens before the patches; none for a pooled mixer."""
        return 0 if self.traits.pooled else self.prefix_tokens

    @property
    def pooling(self) -> str:
        """What the classifier reads, with "default" resolved."""
        return self.pool if self.pool != "default" else "token" if self.prefix else "mean"

    @property
    def bias_kind(self) -> str:
        """The parametrization of w with "default" resolved for the mixer; empty where it has none."""
        return self.traits.position_bias if self.position_bias == "default" else self.position_bias

    def spec(self, block: int = 0) -> MixerSpec:
        """What the mixer of a block is made from."""
        return MixerSpec(
            dim=self.embed_dim,
            num_heads=self.num_heads,
            grid=(self.grid_size, self.grid_size),
            window_size=self.window_size,
            prefix=self.prefix,
            position_bias=self.bias_kind,
            bias_rank=self.bias_rank,
            temperature=self.temperature,
            straight_through=self.straight_through,
            bias_start=self.bias_start,
            positions=self.positions,
            use_query=self.use_query,
            outside=self.outside,
            keep=self.keep[block] if self.keep else None,
            heads=tuple(self.heads[block].split()) if self.heads else (),
        )
