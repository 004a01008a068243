"""What a selection is worth: the same places set to 0, controls of the same number elsewhere, the model as it was."""

import pytest
import torch

from aft_lens.data import batches, load_data
from aft_lens.extraction import AFTReader, as_reader
from aft_lens.models import create_model
from analyses.knockout.selection import Selection, worth

SMALL = {"depth": 2, "embed_dim": 16, "num_heads": 2}


@pytest.fixture(scope="module")
def images():
    return batches(load_data("digits"), 32)


@pytest.fixture(scope="module")
def conv():
    torch.manual_seed(0)
    model = create_model("aft_conv_digits", **SMALL)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.normal_(parameter)
    return AFTReader(model.eval())


def test_controls_are_of_the_same_number_and_nothing_stays_changed(conv, images):
    before = [conv.bias(layer).clone() for layer in range(2)]
    found = worth(conv, images, Selection(1, 0), draws=2)
    assert found.places == 49
    words = [name for name, _ in found.effects]
    assert words == ["layer 1, head 0", "strongest 49 places elsewhere", "random 1", "random 2"]
    assert all(torch.equal(conv.bias(layer), before[layer]) for layer in range(2))
    assert worth(conv, images, Selection(1, 0, (2, -3)), draws=1).places == 1
    assert worth(conv, images, Selection(0), draws=1).places == 98


def test_all_places_gone_is_a_model_without_biases(conv, images):
    both = [worth(conv, images, Selection(layer), draws=1).effects for layer in range(2)]
    assert [name for name, _ in both[0]] == ["layer 0", "strongest 98 places elsewhere", "random 1"]
    # The other layer is the only "elsewhere", so each layer's control is the other's selection.
    assert both[0][0][1] == both[1][1][1]


def test_a_vit_loses_heads_to_uniform_attention(images):
    torch.manual_seed(0)
    reader = as_reader(create_model("vit_digits", **SMALL).eval())
    found = worth(reader, images, Selection(0, 1), draws=2)
    assert found.places == 1
    assert [name for name, _ in found.effects] == ["layer 0, head 1", "random 1", "random 2"]
    with pytest.raises(ValueError, match="offset must be left out for a ViT"):
        worth(reader, images, Selection(0, 1, (0, 0)))


@pytest.mark.parametrize(
    ("chosen", "words"),
    [(Selection(2), "layer must be 0 to 1"), (Selection(0, 5), "head must be 0 to 1"),
     (Selection(0, 0, (9, 0)), "within 3 patches")],
)  # fmt: skip
def test_what_there_is_not_is_refused(conv, images, chosen, words):
    with pytest.raises(ValueError, match=words):
        worth(conv, images, chosen)
