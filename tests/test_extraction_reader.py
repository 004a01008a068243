"""What every library's reader does: check its weights against the model, replace them, say what it cannot read."""

from contextlib import ExitStack, contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from aft_lens.extraction.reader import AttentionReader, spread

GRID, PREFIX, HEADS, WIDTH = (2, 3), 1, 2, 4
TOKENS = 7


class Mixing(nn.Module):
    """Attention of a token to those that are like it; beside its output it gives words, as libraries give weights."""

    def __init__(self, scale):
        super().__init__()
        self.weights = nn.Identity()
        self.proj = nn.Linear(WIDTH, WIDTH)
        with torch.no_grad():
            self.proj.weight.mul_(scale)
            self.proj.bias.mul_(scale)

    def heads(self, x):
        return x.unflatten(2, (HEADS, -1)).transpose(1, 2)

    def forward(self, hidden_states):
        heads = self.heads(hidden_states)
        weights = self.weights((heads @ heads.mT).softmax(-1))
        return self.proj((weights @ heads).transpose(1, 2).flatten(2)), "beside it"


class Toy(nn.Module):
    """Two layers over seven tokens, which are its images."""

    def __init__(self, scale=1.0, by_name=True, hooked=True):
        super().__init__()
        self.layers = nn.ModuleList(Mixing(scale) for _ in range(2))
        self.classifier = nn.Linear(WIDTH, 3)
        self.by_name, self.hooked, self.beside, self.gradients = by_name, hooked, [], []

    def forward(self, x):
        for layer in self.layers:
            call = layer if self.hooked else layer.forward
            mixed, beside = call(hidden_states=x) if self.by_name else call(x)
            self.beside.append(beside)
            x = x + mixed
        self.gradients.append(torch.is_grad_enabled())
        return SimpleNamespace(logits=self.classifier(x[:, 0]), hidden=x)


class ToyReader(AttentionReader):
    """Reads the toy, with as much error as it is told, by layer, as a share of the largest output."""

    def __init__(self, model, errors=(0.0, 0.0), shown=(0, 1), **changes):
        given = {"grid": GRID, "prefix": PREFIX, "num_heads": HEADS, "image_size": (20, 30)} | changes
        super().__init__("toy", model, given.pop("layers", getattr(model, "layers", [model])), **given)
        self.errors, self.shown = errors, shown

    @contextmanager
    def exposed(self, sink):
        with ExitStack() as stack:
            for number in self.shown:
                hook = partial(self._show, sink, number)
                stack.callback(self.layers[number].weights.register_forward_hook(hook).remove)
            yield

    @staticmethod
    def _show(sink, number, _module, _inputs, output):
        sink(number, output)

    def values(self, layer, x):
        return self.layers[layer].heads(x)

    def project(self, layer, x, mixed):
        output = self.layers[layer].proj(mixed)
        wrong = torch.zeros_like(x)
        wrong[0, 3, 2] = self.errors[layer] * (output.abs().max() or 1.0)
        return output + wrong


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randn(2, TOKENS, WIDTH)


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_a_reader_says_what_it_was_given():
    model = Toy()
    reader = ToyReader(model, data="digits", in_chans=1, trained_grid=(4, 4))
    assert (reader.source, reader.model, reader.layers) == ("toy", model, list(model.layers))
    assert (reader.grid, reader.prefix, reader.num_heads, reader.image_size) == (GRID, PREFIX, HEADS, (20, 30))
    assert (reader.in_chans, reader.data, reader.trained_grid, reader.preprocessing) == (1, "digits", (4, 4), None)
    assert reader.device == torch.device("cpu")
    plain = ToyReader(model)
    assert (plain.in_chans, plain.data, plain.trained_grid) == (3, None, GRID)
    known = object()
    assert ToyReader(model, preprocessing=known).preprocessing is known
    with pytest.raises(ValueError, match=r"^toy: no attention layers were found$"):
        ToyReader(model, layers=[])
    with pytest.raises(ValueError, match=r"^toy: queries and keys of Mixing are not read; plain attention of timm, "):
        reader.queries_keys(0, torch.zeros(1, TOKENS, WIDTH))


@pytest.mark.parametrize("scale", [1.0, -1.0, 1e-3], ids=str)
@pytest.mark.parametrize("errors", [(1e-5, 5e-5), (5e-5, 1e-5), (-5e-5, 0.0)], ids=str)
def test_verification_finds_the_largest_error_of_all_layers_as_a_share_of_the_output(images, scale, errors):
    reader = ToyReader(Toy(scale), errors)
    assert reader.verify(images) == pytest.approx(5e-5, rel=0.02)
    assert hooks(reader.model) == 0
    assert set(reader.model.gradients) == {False}


def test_verification_of_outputs_that_are_all_zero_tells_the_error_itself(images):
    assert ToyReader(Toy(0.0)).verify(images) == 0.0
    assert ToyReader(Toy(0.0), (0.0, 5e-5)).verify(images) == pytest.approx(5e-5)


@pytest.mark.parametrize("layer", [0, 1])
def test_an_error_above_the_tolerance_is_refused_in_any_layer(images, layer):
    errors = [0.0, 0.0]
    errors[layer] = -2e-4
    reader = ToyReader(Toy(), errors)
    with pytest.raises(RuntimeError, match=f"^toy: outputs of layer {layer} recomputed .* differ by 0.0002, more than "
                                           "0.0001; this model does more"):  # fmt: skip
        reader.verify(images)
    found = reader.verify(images, 3e-4)
    assert found == pytest.approx(2e-4, rel=0.02)
    assert reader.verify(images, found) == found
    assert hooks(reader.model) == 0


def test_weights_that_do_not_come_and_layers_that_are_not_run_are_refused(images):
    with pytest.raises(RuntimeError, match=r"^toy: the weights of attention layer 1 never came by$"):
        ToyReader(Toy(), shown=[0]).verify(images)
    with pytest.raises(RuntimeError, match=r"^toy: the weights of attention layer 0 never came by$"):
        ToyReader(Toy(hooked=False)).verify(images)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": (3, 3)}, r"\(2, 2, 7, 7\), expected \(2, 2, 10, 10\) for grid \(3, 3\) and 1 prefix tokens"),
        ({"prefix": 0}, r"\(2, 2, 7, 7\), expected \(2, 2, 6, 6\) for grid \(2, 3\) and 0 prefix tokens"),
        ({"num_heads": 4}, r"\(2, 2, 7, 7\), expected \(2, 4, 7, 7\) for grid \(2, 3\) and 1 prefix tokens"),
    ],
    ids=str,
)
def test_weights_of_another_shape_are_refused_with_what_was_expected(images, changes, words):
    with pytest.raises(RuntimeError, match=f"^toy: weights of layer 0 have shape {words}; give `grid` and `prefix`$"):
        ToyReader(Toy(), **changes).verify(images)


def test_where_patches_read_nothing_nothing_is_said_by_offset(images):
    reader = ToyReader(Toy())
    reader.patches_read = False
    with pytest.raises(
        ValueError, match=r"so nothing can be said by offset; `aft-lens attend` shows what it reads in an "
    ):
        reader.verify(images)
    assert reader.verify(images, patches=False) < 1e-5


@pytest.mark.parametrize("by_name", [True, False])
def test_what_enters_every_layer_is_read(images, by_name):
    reader, seen = ToyReader(Toy(by_name=by_name)), []
    with reader.inputs(lambda layer, x: seen.append((layer, x))):
        reader.logits(images)
    assert [layer for layer, _ in seen] == [0, 1]
    torch.testing.assert_close(seen[0][1], images)
    torch.testing.assert_close(seen[1][1], images + reader.model.layers[0](images)[0])
    assert hooks(reader.model) == 0


@pytest.mark.parametrize("name", ["hidden_states", "x", "query"])
def test_a_layers_input_is_found_by_the_names_that_libraries_give_it(images, name):
    layer = nn.Identity()
    layer.forward = lambda **given: given[name]
    reader, seen = ToyReader(layer), []
    with reader.inputs(lambda _layer, x: seen.append(x)):
        layer(mask=None, **{name: images})
    assert seen[0] is images


@pytest.mark.parametrize("by_name", [True, False])
def test_edited_weights_mix_in_place_of_the_models_own(images, by_name):
    reader = ToyReader(Toy(by_name=by_name))
    own, seen = reader.logits(images), []

    def uniform_in_the_second(layer, weights):
        seen.append((layer, weights))
        return torch.full_like(weights, 1 / TOKENS) if layer else weights

    with reader.edited(uniform_in_the_second):
        edited = reader.model(images)
    x = images + reader.model.layers[0](images)[0]
    expected = x + reader.model.layers[1].proj(x.mean(1, keepdim=True))
    torch.testing.assert_close(edited.hidden, expected)
    assert [layer for layer, _ in seen] == [0, 1]
    heads = images.unflatten(2, (HEADS, -1)).transpose(1, 2)
    torch.testing.assert_close(seen[0][1], (heads @ heads.mT).softmax(-1))
    assert set(reader.model.beside) == {"beside it"}
    assert hooks(reader.model) == 0
    assert torch.equal(reader.logits(images), own)


def test_edits_that_change_nothing_leave_the_output_as_it_is(images):
    reader = ToyReader(Toy(), (0.5, 0.5))  # who recomputed an output would see it
    own = reader.logits(images)
    with reader.edited(lambda _layer, weights: weights):
        assert torch.equal(reader.logits(images), own)
    with reader.edited(lambda _layer, weights: weights.clone()):
        assert not torch.allclose(reader.logits(images), own)


def test_a_remix_has_each_layers_input_and_weights_and_says_what_its_heads_read(images):
    reader, seen = ToyReader(Toy()), []

    def first_to_zero(layer, x, weights):
        seen.append((layer, x, weights.shape))
        return None if layer else torch.zeros_like(x)

    with reader.remixed(first_to_zero):
        hidden = reader.model(images).hidden
    x = images + reader.model.layers[0].proj.bias
    torch.testing.assert_close(hidden, x + reader.model.layers[1](x)[0])
    assert [(layer, shape) for layer, _, shape in seen] == [(layer, (2, HEADS, TOKENS, TOKENS)) for layer in (0, 1)]
    assert seen[0][1] is images
    torch.testing.assert_close(seen[1][1], x)
    assert set(reader.model.beside) == {"beside it"}


def test_a_layer_that_gives_a_tensor_alone_gives_one_when_it_is_remixed(images):
    class Alone(Mixing):
        def forward(self, x):
            return super().forward(x)[0]

    layer = Alone(1.0)
    reader = ToyReader(layer)
    reader.shown = [0]
    with reader.remixed(lambda _layer, x, _weights: torch.zeros_like(x)):
        torch.testing.assert_close(layer(images), layer.proj.bias.expand_as(images))
    assert ToyReader(layer, shown=[0]).verify(images) < 1e-5


@pytest.mark.parametrize("name", ["head", "heads", "classifier", "cls_classifier"])
def test_features_are_what_the_classifier_reads(images, name):
    model = Toy()
    head = model.classifier
    if name != "classifier":
        model.forward = lambda x: (getattr(model, name)(x[:, 0]), "beside it")
        del model.classifier
        setattr(model, name, head)
    reader = ToyReader(model)
    features, logits = reader.read(images)
    assert features.shape == (2, WIDTH)
    torch.testing.assert_close(logits, head(features))
    torch.testing.assert_close(reader.logits(images), logits)
    torch.testing.assert_close(reader.features(images), features)
    assert hooks(model) == 0


def test_a_model_without_a_classifier_gives_features_and_no_logits(images):
    model = Toy()
    model.classifier = nn.Identity()
    features, logits = ToyReader(model).read(images)
    assert logits is None
    torch.testing.assert_close(features, model(images).hidden[:, 0])
    del model.classifier
    for output, prefix, expected in (
        (lambda x: (x, "beside it"), 1, images[:, 0]),
        (lambda x: (x, "beside it"), 0, images.mean(1)),
        (lambda x: x[:, 2], 1, images[:, 2]),
        (lambda x: x[:, 2], 0, images[:, 2]),
    ):
        model.forward = output
        features, logits = ToyReader(model, prefix=prefix).read(images)
        assert logits is None
        torch.testing.assert_close(features, expected)


def test_heads_are_mixed_apart_in_the_type_of_their_values_and_laid_side_by_side():
    weights, values = torch.rand(2, 3, 4, 5).half(), torch.rand(2, 3, 5, 6, dtype=torch.float64)
    found = spread(weights, values)
    expected = torch.stack(
        [torch.cat([weights[image, head].double() @ values[image, head] for head in range(3)], 1) for image in range(2)]
    )
    torch.testing.assert_close(found, expected)
