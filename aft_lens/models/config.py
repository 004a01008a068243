"""What a vision model is made of, as one frozen record."""

from dataclasses import dataclass

import aft_lens.layers.mixers  # noqa: F401 - they register themselves
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec

STEMS = ("patch", "conv")
RANGES: dict[str, tuple[float, float]] = {
    "img_size": (1, 4096), "patch_size": (1, 1024), "in_chans": (1, 256), "num_classes": (1, 1_000_000),
    "embed_dim": (1, 65_536), "depth": (1, 1024), "num_heads": (1, 65_536), "mlp_ratio": (2**-10, 256),
    "window_size": (1, 4096), "bias_rank": (1, 65_536), "temperature": (1e-9, 1e9), "bias_start": (0, 1e6),
    "drop_path": (0, 1),
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
    """Outputs of the classifier."""
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
    keep: tuple[int, ...] = ()
    """Offsets that each block's widest AFT-conv head keeps after pruning (0: pooling alone); empty: not pruned."""
    name: str = ""
    """Registered model that the other fields start from; empty for none."""

    def __post_init__(self) -> None:
        """Check every value that a model is built from."""
        object.__setattr__(self, "keep", tuple(self.keep))
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
        if wrong := traits.check(self.spec()):
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
            class_token=not self.traits.pooled,
            position_bias=self.bias_kind,
            bias_rank=self.bias_rank,
            temperature=self.temperature,
            straight_through=self.straight_through,
            bias_start=self.bias_start,
            positions=self.positions,
            use_query=self.use_query,
            outside=self.outside,
            keep=self.keep[block] if self.keep else None,
        )
