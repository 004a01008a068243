"""A pruning curve: the parent once, one set of images tested on and another calibrated on, paired intervals."""

import pytest
import torch

from aft_lens.data import batches, load_data
from aft_lens.models import create_model
from analyses.pruning.curve import prune_curve


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = create_model("aft_conv_digits", depth=1, embed_dim=16, num_heads=2)
    for name, parameter in made.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.normal_(parameter)
    return made.eval()


def test_every_point_is_measured_on_the_same_images(model):
    data = load_data("digits")
    test, calibration = batches(data, 40), batches(data, 30, "val")
    seen = []
    found = prune_curve(model, test, calibration, criteria=["magnitude", "random"], keeps=[1, 49], each=seen.append)
    assert [(point.criterion, point.keep) for point in found.points] == [
        ("magnitude", 1), ("magnitude", 49), ("random", 1), ("random", 49)
    ]  # fmt: skip
    assert [len(one.points) for one in seen] == [1, 2, 3, 4]
    assert (found.images, found.calibration) == (40, 30)
    whole = [point for point in found.points if point.keep == 49]
    assert all(point.change == 0.0 and point.accuracy == found.parent for point in whole)
    assert all(point.interval[0] <= point.change <= point.interval[1] for point in found.points)
    assert {trace.name for trace in found.interactive().data} == {"magnitude", "random"}
    with pytest.raises(ValueError, match="criteria and keeps must not be empty"):
        prune_curve(model, test, calibration, criteria=[], keeps=[1])
