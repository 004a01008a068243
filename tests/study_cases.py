"""Studies and runs for the tests of the study."""

from analyses.study import Study
from analyses.study.record import Places, Run

PLACES = Places([[1, 2], [3, 4]], 2.0, 2.0)


def smoke(tmp_path, **changes):
    fields = {"family": "digits", "seeds": 2, "epochs": 2, "long_epochs": 0, "accelerator": "cpu"}
    fields["batch_size"] = 8
    return Study(**{"runs": tmp_path / "runs", "only": ("vit", "conv"), "limit_batches": 1, **fields, **changes})


def run(configuration, seed, accuracy, **more):
    """A finished run without anything that is not asked for."""
    recipe = {"model": {"img_size": 28, "patch_size": 2}}
    fields = {
        "epochs": 2, "recipe": recipe, "long": False, "loss": 0.1, "sizes": {}, "places": PLACES, "parameters": 1000,
        "val_accuracy": accuracy, "train_loss": 0.1, "images_per_second": 100.0, "seconds": 20.0, "resumed": False,
        "peak_memory_mib": None, "hardware": "a CPU", "versions": {"torch": "2.11.0"}, "commit": None,
    }  # fmt: skip
    return Run(configuration, seed=seed, accuracy=accuracy, **{**fields, **more})
