"""The state that pages share: whole in the address, and in words where an address says what cannot be."""

import pytest

from app.workspace import CLASS_TOKEN, FIELDS, Workspace, read_address


def test_an_address_says_everything_and_means_the_same_again():
    space = Workspace().step(a="one", offset=(-3, 2), target=CLASS_TOKEN, keep=(1, 4), runs=("x", "y"), scale="rank")
    address = space.address()
    assert address.keys() == FIELDS.keys()
    assert address["offset"] == "-3.2"
    assert address["keep"] == "1,4"
    assert read_address(address) == (space, [])
    assert read_address(Workspace().address()) == (Workspace(), [])


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"scale": "loud"}, "scale must be one of own, log, rank, shared, the address says 'loud'"),
        ({"layer": "-1"}, "layer must be a whole number from 0"),
        ({"offset": "1"}, "offset must be two whole numbers"),
        ({"target": "9"}, "target must be row.column of a patch, or class"),
        ({"keep": "1,x"}, "keep must be numbers"),
        ({"image": "cat"}, "image must be the number of a test image, or upload"),
        ({"odd": "1"}, "nothing that can be chosen"),
        ({"a": "x" * 500}, "a must be text of up to 400"),
        ({"layer": "9" * 5000}, "layer must be"),
    ],
)
def test_what_cannot_be_is_said_and_left_as_it_was(query, words):
    before = Workspace().step(layer=2, scale="log")
    found, problems = read_address(query, before)
    assert found == before
    assert len(problems) == 1
    assert words in problems[0]
    assert len(problems[0]) < 300


def test_a_choice_that_there_is_not_is_a_mistake_of_the_page():
    with pytest.raises(KeyError, match="colour"):
        Workspace().step(colour="red")
