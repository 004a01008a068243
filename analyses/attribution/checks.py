"""Does an attribution know the model, and the image? Cascading randomisation, and insertion and deletion of pixels."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.later import later
from aft_lens.mode import evaluating
from aft_lens.models import VisionModel
from aft_lens.progress import progress as bar
from aft_lens.statistics import Interval, normal_interval
from analyses.attribution.methods import FED, Attribute

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = later("scipy.stats")

STEPS = 16
"""Parts of the pixels that are deleted, or inserted, one after another."""
DRAWS = 8
"""Random orders of the pixels that an image's curves are held against."""


@dataclass(frozen=True)
class Stage:
    """A model whose weights are gone from the classifier down to one part, and how like the attribution still is."""

    part: str
    """The last one that was drawn anew; "" before any."""
    correlation: float
    """Spearman's, over pixels, of |attribution| with that of the trained model, mean over images."""
    interval: Interval


@dataclass(frozen=True)
class Curves:
    """Probability of the predicted class over the share of pixels deleted, or inserted into a grey image."""

    share: Float[np.ndarray, "step"]
    attributed: Float[np.ndarray, "step"]
    """Pixels that speak most for the class first; mean over images."""
    random: Float[np.ndarray, "step"]
    """Mean over images and random orders."""
    gain: float
    """Area under the curve less that of random orders, mean over images: below 0 is good for deletion."""
    interval: Interval
    """95 %, over images."""


@dataclass(frozen=True)
class Check:
    """What an attribution did in both checks."""

    method: str
    stages: tuple[Stage, ...]
    deletion: Curves
    insertion: Curves

    @property
    def knows_weights(self) -> bool:
        """Whether the attribution surely changes when all weights are gone: the interval ends below a half."""
        return self.stages[-1].interval[1] < 0.5

    @property
    def knows_image(self) -> bool:
        """Whether deleting and inserting by it surely beat random orders."""
        return self.deletion.interval[1] < 0 and self.insertion.interval[0] > 0

    @property
    def words(self) -> str:
        """What the attribution passed, in words."""
        passed = [words for words, good in (("weights", self.knows_weights), ("image", self.knows_image)) if good]
        return " and ".join(passed) or "nothing"


def parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """What has weights, from the classifier down: of our models head, norm, blocks, stem; else the leaf modules."""
    if isinstance(model, VisionModel):
        blocks = [(f"block {i}", block) for i, block in enumerate(model.blocks)]
        found = [("stem", model.stem), *blocks, ("norm", model.norm), ("head", model.head)]
    else:
        found = [(name, part) for name, part in model.named_modules() if not list(part.children())]
    return [(name, part) for name, part in reversed(found) if list(part.parameters())]


@torch.no_grad()
def drawn_anew(part: nn.Module, generator: torch.Generator) -> None:
    """Give every weight of a part another of the same part's tensor, in random order: the scale stays."""
    for parameter in part.parameters():
        order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))


def cascade(
    model: nn.Module, images: Float[Tensor, "b c y x"], attribute: Attribute, *, seed: int = 0, progress: bool = False
) -> tuple[Stage, ...]:
    """Shuffle weights part by part from the classifier down, and compare attributions of the class first predicted.

    Cascading randomisation of Adebayo et al. (2018): an attribution that stays as it was knows the image's edges and
    not the model. The model itself is left alone.
    """
    shuffled = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        classes = shuffled(images).argmax(1)
    before = _ranks(attribute(shuffled, images, classes))
    found = [Stage("", 1.0, (1.0, 1.0))]
    for name, part in bar(parts(shuffled), "weights shuffled", shown=progress):
        drawn_anew(part, generator)
        correlations = (before * _ranks(attribute(shuffled, images, classes))).sum(1)
        found.append(Stage(name, float(correlations.mean()), normal_interval(correlations)))
    return tuple(found)


@torch.no_grad()
def curves(
    model: nn.Module, images: Float[Tensor, "b c y x"], values: Float[Tensor, "b y x"], *, seed: int = 0,
    insert: bool = False, cell: int = 1,
) -> Curves:  # fmt: skip
    """Delete pixels (Petsiuk et al. 2018), or insert them into a grey image (0 after normalisation), most first.

    `cell` is the side of the squares that go at once, in pixels: attributions are summed over them. Random orders of
    the same squares are the baseline. Raises ValueError where squares do not fill the image.
    """
    b, _, rows, columns = images.shape
    if rows % cell or columns % cell:
        raise ValueError(f"cell must divide the image's sides {rows} and {columns}, got {cell}")
    grid = rows // cell, columns // cell
    summed = values.unflatten(2, (grid[1], cell)).unflatten(1, (grid[0], cell)).sum((2, 4)).flatten(1)
    generator = torch.Generator().manual_seed(seed)
    count = summed.shape[1]
    share = np.linspace(0, 1, min(STEPS, count) + 1)
    classes = model(images).argmax(1)
    orders = [summed.argsort(dim=1, descending=True, stable=True)]
    orders += [torch.rand(b, count, generator=generator).argsort(1).to(images.device) for _ in range(DRAWS)]
    found = []
    for order in orders:
        place = order.argsort(1)  # when each square goes
        steps = []
        for step in share:
            gone = (place < round(step * count)).view(b, 1, *grid).to(images)
            gone = gone.repeat_interleave(cell, 2).repeat_interleave(cell, 3)
            steps.append(_probability(model, images * (gone if insert else 1 - gone), classes))
        found.append(torch.stack(steps, 1).double().cpu().numpy())
    random = np.mean(found[1:], 0)
    areas = np.trapezoid(found[0], share, axis=1) - np.trapezoid(random, share, axis=1)
    return Curves(share, found[0].mean(0), random.mean(0), float(areas.mean()), normal_interval(areas))


def check(
    model: nn.Module, images: Float[Tensor, "b c y x"], method: str, attribute: Attribute, *, cell: int = 1,
    seed: int = 0, progress: bool = False,
) -> Check:  # fmt: skip
    """Both checks of one attribution on normalised images; the model is left as it is.

    Raises ValueError on fewer than two images, over which intervals could not be made.
    """
    if len(images) < 2:
        raise ValueError(f"images must be 2 or more, for intervals over them, got {len(images)}")
    with evaluating(model):
        with torch.no_grad():
            classes = model(images).argmax(1)
        values = attribute(model, images, classes)
        stages = cascade(model, images, attribute, seed=seed, progress=progress)
        deleted, inserted = (
            curves(model, images, values, seed=seed, insert=insert, cell=cell) for insert in (False, True)
        )
    return Check(method, stages, deleted, inserted)


def _ranks(values: Float[Tensor, "b y x"]) -> Float[np.ndarray, "b pixel"]:
    """Ranks of |values|, centred and of length 1: their products are Spearman's correlations; 0 where all are equal."""
    ranks = stats.rankdata(values.abs().flatten(1).double().cpu().numpy(), axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    length = np.linalg.norm(ranks, axis=1, keepdims=True)
    return np.divide(ranks, length, out=np.zeros_like(ranks), where=length > 0)


def _probability(model: nn.Module, images: Tensor, classes: Tensor) -> Float[Tensor, "b"]:
    """Of the class of each image."""
    given: Sequence[Tensor] = [model(each).softmax(1) for each in images.split(FED)]
    return torch.cat(list(given)).gather(1, classes[:, None])[:, 0]
