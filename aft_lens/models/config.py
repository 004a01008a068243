"""What a vision model is made of, as one frozen record."""

from dataclasses import dataclass

RIVALS = (
    "synthesizer",
    "linear_attention",
    "performer",
    "reformer",
    "lambda",
    "local_attention",
    "strided_attention",
)
"""What Tables 1, 2, 4 and 7 compare with; reformer and lambda need the `baselines` extra."""
MIXERS = ("attention", "aft_full", "aft_local", "aft_simple", "aft_conv", *RIVALS)
STEMS = ("patch", "conv")


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a vision model; the words are timm's. Raises ValueError on a value that cannot be built."""

    mixer: str = "aft_conv"
    """Token mixer: attention, aft_full, aft_local, aft_simple, aft_conv or one of `RIVALS`."""
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
    """free, factorized (Eq. 7), reparameterized (Eq. 8), single (Eq. 10), or the mixer's default."""
    bias_rank: int = 128
    """d' of Eq. 7."""
    temperature: float = 0.5
    """tau of Eq. 10."""
    straight_through: bool = False
    """Eq. 10's forward pass with the sample's one-hot, its gradient with the soft sample."""
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

    def __post_init__(self) -> None:
        """Check every value that a model is built from."""
        object.__setattr__(self, "keep", tuple(self.keep))
        if self.mixer not in MIXERS:
            raise ValueError(f"mixer must be one of {MIXERS}, got {self.mixer!r}")
        if self.stem not in STEMS:
            raise ValueError(f"stem must be one of {STEMS}, got {self.stem!r}")
        if self.img_size % self.patch_size:
            raise ValueError(f"img_size must be a multiple of patch_size, got {self.img_size} and {self.patch_size}")
        if self.mixer == "aft_conv" and self.window_size % 2 == 0:
            raise ValueError(f"window_size must be odd for aft_conv, got {self.window_size}")
        if self.keep and self.mixer != "aft_conv":
            raise ValueError(f"keep is for aft_conv alone, got keep={self.keep} with mixer {self.mixer!r}")
        if self.keep and (len(self.keep) != self.depth or min(self.keep) < 0):
            raise ValueError(f"keep must have a count of 0 or more for each of {self.depth} blocks, got {self.keep}")

    @property
    def grid_size(self) -> int:
        """Patches on a side at the training size."""
        return self.img_size // self.patch_size

    @property
    def bias_kind(self) -> str:
        """The parametrization of w with "default" resolved for the mixer."""
        if self.position_bias != "default":
            return self.position_bias
        return "reparameterized" if self.mixer == "aft_conv" else "factorized"
