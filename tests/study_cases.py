"""Studies and runs for the tests of the study."""

import numpy as np

from analyses.study import Study
from analyses.study.record import Places, Run, packed

PLACES = Places([[1, 2], [3, 4]], 2.0, 2.0)
IMAGES = 400


def smoke(tmp_path, **changes):
    fields = {"family": "digits", "seeds": 2, "epochs": 2, "accelerator": "cpu", "tuned": False, "batch_size": 8}
    fields |= {"runs": tmp_path / "runs", "only": ("vit", "conv"), "limit_batches": 1}
    return Study(**{**fields, **changes})


def run(configuration, seed, accuracy, **more):
    """A finished run without anything that is not asked for; every run is right on the first images."""
    right = np.arange(IMAGES) < IMAGES * accuracy / 100
    fields = {
        "plan": "claims", "family": "fashion", "epochs": 2, "recipe": {}, "loss": 0.1, "right": packed(right),
        "images": IMAGES, "sizes": {}, "pruned": {}, "places": PLACES, "parameters": 1000, "val_accuracy": accuracy,
        "train_loss": 0.1, "images_per_second": 100.0, "seconds": 20.0, "resumed": False, "peak_memory_mib": None,
        "hardware": "a CPU", "versions": {"torch": "2.11.0"}, "commit": None, "started": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return Run(configuration, seed=seed, accuracy=accuracy, **{**fields, **more})
