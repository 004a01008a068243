"""A linear probe: classes for a ViT that has none, read off its frozen features."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from aft_lens.extraction import AttentionReader
from aft_lens.extraction.reader import AttentionSink
from aft_lens.later import later
from aft_lens.progress import progress as bar

if TYPE_CHECKING:
    from sklearn import linear_model, model_selection, pipeline, preprocessing
else:
    linear_model = later("sklearn.linear_model")
    model_selection = later("sklearn.model_selection")
    pipeline = later("sklearn.pipeline")
    preprocessing = later("sklearn.preprocessing")

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the L2 penalty (scikit-learn's C) that are tried."""
FOLDS = 5
"""Of the cross-validation that chooses among them; a class needs as many images."""


@dataclass(frozen=True)
class Probe:
    """A linear map from features to class logits, and how it was fitted."""

    weight: Float[Tensor, "class d"]
    bias: Float[Tensor, "class"]
    penalty: float
    """The C of `PENALTIES` with the least cross entropy in cross-validation."""
    images: int
    """Training images."""

    @property
    def words(self) -> str:
        """How it was fitted."""
        return (
            f"scikit-learn's LogisticRegression (C = {self.penalty:g} by {FOLDS}-fold cross-validation) on "
            f"{self.weight.shape[1]} standardised features of {self.images} training images"
        )


class ProbedReader(AttentionReader):
    """A reader whose logits are a probe's of the features of another one's model."""

    def __init__(self, reader: AttentionReader, probe: Probe) -> None:
        super().__init__(
            reader.source,
            reader.model,
            reader.layers,
            grid=reader.grid,
            prefix=reader.prefix,
            num_heads=reader.num_heads,
            image_size=reader.image_size,
            in_chans=reader.in_chans,
            preprocessing=reader.preprocessing,
            data=reader.data,
            trained_grid=reader.trained_grid,
        )
        self.reader, self.probe = reader, probe

    def exposed(self, sink: AttentionSink) -> AbstractContextManager[None]:
        """As the other reader's."""
        return self.reader.exposed(sink)

    def values(self, layer: int, x: Tensor) -> Tensor:
        """As the other reader's."""
        return self.reader.values(layer, x)

    def queries_keys(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        """As the other reader's."""
        return self.reader.queries_keys(layer, x)

    def project(self, layer: int, x: Tensor, mixed: Tensor) -> Tensor:
        """As the other reader's."""
        return self.reader.project(layer, x, mixed)

    def logits(self, images: Tensor) -> Tensor:
        """The probe's class logits."""
        return self._read(images)[1]

    def read(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """The other reader's features, and the probe's class logits."""
        return self._read(images)

    def _read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.reader.features(images).float()
        with torch.autocast(features.device.type, enabled=False):
            return features, F.linear(features, self.probe.weight.to(features), self.probe.bias.to(features))


@torch.no_grad()
def fit_probe(
    reader: AttentionReader, batches: Iterable[tuple[Tensor, Tensor]], *, seed: int = 0, progress: bool = False
) -> Probe:
    """Fit logistic regression to the model's features of labelled images; the model stays as it is.

    Features are `AttentionReader.features`, standardised over the images. The strength of the L2 penalty has the least
    cross entropy in cross-validation, whose folds are drawn with `seed`. Raises ValueError on fewer than two classes
    and on a class with fewer images than folds.
    """
    device = next(reader.model.parameters()).device
    seen, given = [], []
    for images, labels in bar(batches, "features", shown=progress, patience=0.0):
        seen.append(reader.features(images.to(device)).double().cpu())
        given.append(labels)
    features, labels = torch.cat(seen), torch.cat(given)
    count = labels.bincount()
    if len(count) < 2 or int(count.min()) < FOLDS:
        raise ValueError(
            f"a probe needs {FOLDS} training images or more of each of two or more classes, got {count.tolist()} of "
            f"{len(labels)} images; raise --probe"
        )
    search = model_selection.GridSearchCV(
        pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression(max_iter=5000)),
        {"logisticregression__C": PENALTIES},
        scoring="neg_log_loss",
        cv=model_selection.StratifiedKFold(FOLDS, shuffle=True, random_state=seed),
    ).fit(features.numpy(), labels.numpy())
    scaler, regression = (step for _, step in search.best_estimator_.steps)
    weight = torch.from_numpy(regression.coef_ / scaler.scale_)
    bias = torch.from_numpy(regression.intercept_) - weight @ torch.from_numpy(scaler.mean_)
    if len(weight) == 1:  # two classes share one logit there
        weight, bias = (torch.cat([torch.zeros_like(each), each]) for each in (weight, bias))
    return Probe(weight.float(), bias.float(), search.best_params_["logisticregression__C"], len(labels))
