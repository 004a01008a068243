"""What is compared: configurations as changes of shipped recipes, and the data that they are trained on."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """A data set, with what all of its runs share."""

    words: str
    crop: int
    """Side in pixels of the crops of a configuration that is also tested larger, at the data's own size."""
    changes: tuple[str, ...] = ()
    """Fields by dotted name."""
    images: int = 0
    """Training images, those that validate included."""


FAMILIES: Mapping[str, Family] = {
    "cifar10": Family("CIFAR-10", 24, ("data.augment=flip-crop", "data.cutmix=1.0"), 50_000),
    "fashion": Family("Fashion-MNIST", 20, ("data.augment=flip-crop", "model.stem=patch"), 60_000),
    "digits": Family("digits (small, to try a study)", 6, ("data.augment=shift",), 1_437),
}
"""By the first part of their recipes' names. Patches that do not overlap, so that nothing else mixes neighbours."""


@dataclass(frozen=True)
class Configuration:
    """A recipe and what is changed in it."""

    name: str
    words: str
    """For tables."""
    recipe: str = "conv"
    """Shipped recipe without its data set's name, e.g. conv for fashion-conv."""
    changes: tuple[str, ...] = ()
    """Fields by dotted name, e.g. model.window_size=7."""
    start: str | None = None
    """Configuration whose trained weights of the same seed it starts from (a ViT: Table 8); None is random."""
    crops: bool = False
    """Trained on random resized crops of the family's `crop`, and tested at the data's own size too."""
    families: tuple[str, ...] = tuple(FAMILIES)
    """Where it is trained; what others would cost is not worth what they would tell."""
    tuned_as: str = ""
    """Configuration whose tuned learning rates it takes; empty for its own."""
    keeps: tuple[int, ...] = ()
    """Offsets a head to which the trained model is also pruned by magnitude, and tested."""

    @property
    def tuned(self) -> str:
        """Name of the configuration whose tuned learning rates it takes."""
        return self.tuned_as or self.name


def _single(name: str, words: str, *changes: str, **more: str) -> Configuration:
    return Configuration(name, words, "single", changes, **more)  # type: ignore[arg-type]


GRIDS = ("cifar10", "fashion")
"""Families whose models have six layers."""
COSTLY = ("fashion", "digits")
"""Families of what is slow at a 16 x 16 grid: AFT-full, and a head a channel."""
CLAIMED = (
    Configuration("vit", "ViT", "vit"),
    Configuration("conv", "AFT-conv 11/16", keeps=(1, 2, 4, 8, 16)),
    _single("single", "AFT-conv 11/16, single position"),
    Configuration("entropy", "AFT-conv 11/16, entropy 0.001", "entropy", keeps=(1, 2, 4, 8, 16)),
    Configuration("w3", "AFT-conv 3/16", changes=("model.window_size=3",)),
    Configuration("w7", "AFT-conv 7/16", changes=("model.window_size=7",)),
    Configuration("w19", "AFT-conv 19/16", changes=("model.window_size=19",)),
    Configuration("w7-free", "AFT-conv 7/16, naive w", changes=("model.window_size=7", "model.position_bias=free")),
    Configuration("w7-only", "AFT-conv 7/16, window alone", changes=("model.window_size=7", "model.outside=none")),
    Configuration("no-query", "AFT-conv 11/16 without query", changes=("model.use_query=false",)),
    Configuration("transfer", "AFT-conv 11/16 from the ViT", start="vit"),
    Configuration("crops", "AFT-conv 11/16 on resized crops", crops=True),
    Configuration("full", "AFT-full, factorized", "full", families=COSTLY),
    Configuration("full-free", "AFT-full, not factorized", "full", ("model.position_bias=free",), families=COSTLY),
    Configuration("h96", "AFT-conv 11/96", changes=("model.num_heads=96",), families=COSTLY),
)
"""Of the paper's claims. a/b is kernel a and b heads; with width 96, 96 heads are one a channel as the paper's 384."""
CONTROLS = (
    _single("random", "one random position a head, never moved", "model.position_bias=random"),
    _single("ring", "one of the eight neighbours a head", "model.position_bias=ring"),
    Configuration("pool", "pooling alone (w = 0)", changes=("model.keep=[0,0,0,0,0,0]",), families=GRIDS),
    Configuration("no-cutmix", "AFT-conv 11/16 without CutMix", changes=("data.cutmix=0.0",), tuned_as="conv"),
    Configuration("conv-96", "AFT-conv 11/96", changes=("model.num_heads=96",), tuned_as="conv"),
    _single("single-96", "AFT-conv 11/96, single position", "model.num_heads=96", tuned_as="single"),
    _single("random-96", "96 random positions a layer", "model.position_bias=random", "model.num_heads=96",
            tuned_as="random"),
    _single("single-hard", "single position, straight-through", "model.straight_through=true", tuned_as="single"),
    _single("single-cooled", "single position, tau 2 to 0.1", "model.temperature=2",
            "sparsity.temperature_schedule=exponential", "sparsity.temperature_end=0.1", tuned_as="single"),
)  # fmt: skip
"""What does it matter which positions? And why does a single position lose?"""


RIVAL_WORDS = {
    "topk": "top-k, straight-through",
    "spaced": "learnable spacings (DCLS)",
    "hard_concrete": "hard-concrete gates (L0)",
    "entmax": "1.5-entmax",
}
"""By kind of position bias."""
RIVAL_SETTINGS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "topk": ("model.positions", (2, 1, 4, 8)),
    "spaced": ("model.positions", (2, 1, 4, 8)),
    "hard_concrete": ("sparsity.gate_weight", (1e-4, 3e-5, 3e-4, 1e-3)),
    "entmax": ("model.temperature", (0.5, 0.1, 2.0, 8.0)),
}
"""By kind: the field that sets how many positions are left, and its values, the one that is tuned first."""
RIVALS = tuple(
    Configuration(
        f"{kind}-{value:g}", f"{RIVAL_WORDS[kind]}, {path.split('.')[1]} {value:g}",
        changes=(f"model.position_bias={kind}", f"{path}={value:g}"),
        tuned_as="" if value == values[0] else f"{kind}-{values[0]:g}",
    )
    for kind, (path, values) in RIVAL_SETTINGS.items() for value in values
)  # fmt: skip
"""Other ways to a few positions a head, each at four settings."""
CONFIGURATIONS = {each.name: each for each in (*CLAIMED, *CONTROLS, *RIVALS)}
"""All of them by name."""
