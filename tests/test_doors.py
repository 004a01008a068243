"""What other packages add is found by its entry point: mixers and pruning criteria."""

import pytest
import torch
from installed import install
from pruning_cases import trained_like, two_batches

from aft_lens.layers.mixer import MIXERS
from aft_lens.models import VisionModel, model_config
from aft_lens.registry import Registry
from analyses.pruning import CRITERIA, prune_to_indexing, score


def test_a_mixer_trains_in_the_skeleton(monkeypatch):
    install(monkeypatch, "aft_lens.mixers", "mean", "doors.mixer:MEAN")
    assert "mean" in MIXERS
    model = VisionModel(model_config("aft_conv_digits", mixer="mean", depth=1, embed_dim=8))
    logits = model(torch.randn(2, 1, 8, 8))
    logits.sum().backward()
    assert model.blocks[0].mixer.proj.weight.grad.abs().sum() > 0
    assert model(torch.randn(1, 1, 12, 12)).shape == (1, 10)


def test_a_criterion_prunes(monkeypatch):
    install(monkeypatch, "aft_lens.criteria", "row", "doors.criterion:ROW")
    assert "row" in CRITERIA
    ladder = prune_to_indexing(trained_like(), two_batches(), 2, criterion="row", batch_sizes=())
    assert {offset[0] for layer in ladder.offsets() for head in layer for offset in head} == {0}


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(ValueError, match=r"criterion must be one of .*hard.*, got 'luck'"):
        score(trained_like(), "luck")


def test_a_name_is_taken_once():
    things = Registry("thing", "aft_lens.things")
    things.add("one", 1)
    with pytest.raises(ValueError, match="thing 'one' is registered twice"):
        things.add("one", 2)
