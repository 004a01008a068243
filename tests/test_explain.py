"""Whether position explains a head: known fractions, known damage, AFT as attention, and the command."""

import json
import math
import pickle
import shlex
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from aft_lens.checkpoint import save_checkpoint
from aft_lens.data import load_data
from aft_lens.extraction import AFTReader, AttentionReader, OwnReader, unfold_offsets
from aft_lens.models import VisionModel, create_model, model_config
from analyses.explain import command, explain, open_reader, plan_for
from analyses.explain.causal import REMOVALS, Outcome, compare, own_labels, without
from analyses.explain.measure import Edited
from analyses.explain.opened import Setup, measured
from analyses.explain.position import REPLACEMENTS, head_positions
from app.cli import main

GRID, N = (3, 4), 12
PREFIX_SHARE = 0.25
"""What each token gives the prefix token of `Toy`."""


class Mixer(nn.Module):
    """Three heads over one prefix token and 12 patches, each patch a value that is 1 at the image's marked place."""

    def __init__(self):
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.5))
        self.point = nn.Identity()

    def weights(self, x):
        marked = torch.nn.functional.one_hot(x[:, 1:, 0].argmax(1), N).float()[:, None].expand(-1, N, -1)
        place = torch.eye(N).expand(len(x), -1, -1)
        heads = torch.stack([place, marked, self.share * place + (1 - self.share) * marked], 1)
        whole = torch.zeros(len(x), 3, 1 + N, 1 + N)
        whole[..., 0] = PREFIX_SHARE
        whole[:, :, 1:, 1:] = (1 - PREFIX_SHARE) * heads
        whole[:, :, 0, 1:] = (1 - PREFIX_SHARE) * heads[:, :, 0]
        return whole

    def forward(self, x):
        return self.read(x, self.point(self.weights(x)))

    def read(self, x, attention):
        """Outputs of head 0 (the patches themselves), of head 1 (the marked value) and of head 2."""
        return (attention @ x[:, None]).movedim(1, -1)[..., 0, :]


class Model(nn.Module):
    """Says in which half the mark is: head 0 keeps its place, and head 1 has its value, the classes' contrast."""

    def __init__(self):
        super().__init__()
        self.mixer = Mixer()

    def forward(self, images):
        x = torch.cat([torch.zeros(len(images), 1, 1), images.flatten(1)[..., None]], 1)
        out = self.mixer(x)[:, 1:]
        halves = out[..., 0].unflatten(1, (2, N // 2)).sum(2)
        return 8 * halves * out[..., 1].mean(1, keepdim=True)


class Toy(AttentionReader):
    def __init__(self, model):
        super().__init__("toy", model, [model.mixer], grid=GRID, prefix=1, num_heads=3, image_size=GRID, in_chans=1)

    @contextmanager
    def exposed(self, sink):
        handle = self.layers[0].point.register_forward_hook(lambda _m, _i, output: sink(0, output))
        yield
        handle.remove()

    def values(self, layer, x):
        return x[:, None].expand(-1, 3, -1, -1)

    def project(self, layer, x, mixed):
        return mixed


def marked():
    """Every place marked once, by a value of 1 on nothing; the label is the half of the grid."""
    images = torch.eye(N).reshape(N, 1, *GRID)
    return [(images[:8], torch.arange(8) // 6), (images[8:], torch.ones(4, dtype=torch.long))]


def test_heads_of_place_of_content_and_of_both_have_their_fractions():
    """A head of l place + (1 - l) content has l^2 / (l^2 + (1 - l)^2) of its variance by offset."""
    toy = Toy(Model().eval())
    for share in (0.5, 0.2):
        nn.init.constant_(toy.model.mixer.share, share)
        found = head_positions(toy, marked())
        expected = torch.tensor([[1.0, 0.0, share**2 / (share**2 + (1 - share) ** 2)]])
        torch.testing.assert_close(found.variance.float(), expected, rtol=1e-5, atol=1e-6)
        assert found.divergence[0, 0] == pytest.approx(1, abs=1e-6)
        assert found.divergence[0, 1] == pytest.approx(0, abs=1e-6)
        assert 0.01 < found.divergence[0, 2] < 0.9
        assert found.information[0, 0] == pytest.approx(math.log(N), rel=1e-6)
        torch.testing.assert_close(found.columns, torch.full((1, 3, 1), PREFIX_SHARE, dtype=torch.float64))


def test_a_positional_head_costs_nothing_and_a_content_head_all_it_gives():
    toy = Toy(Model().eval())
    result = explain(toy, marked(), marked(), plan=plan_for(toy, window=1))
    assert result.intact.accuracy == 1
    effects = {edit: rows[0] for edit, rows in result.single.items()}
    assert set(effects) == set(REPLACEMENTS)
    for edit in ("map", "window"):
        assert effects[edit][0].change == 0, "place by place is its own map, and lies within one patch"
        assert abs(effects[edit][0].loss) < 1e-6
    assert effects["uniform"][0].change == -0.5, "without places every image gets the same logits"
    assert effects["map"][1].loss > 0.1
    assert all(abs(rows[2].loss) < 1e-6 for rows in effects.values()), "nothing reads head 2"
    assert result.order[-1].tolist() == [0, 1]
    assert result.plan.counts == (1, 2, 3)
    curve = result.cumulative["map"]
    assert curve[1].loss == pytest.approx(0, abs=1e-6)
    assert curve[2].loss == pytest.approx(effects["map"][1].loss, abs=1e-6)


def test_fractions_equal_those_of_all_weights_at_once():
    torch.manual_seed(0)
    model = create_model("vit_digits", depth=1, img_size=4).eval()
    nn.init.normal_(model.blocks[0].mixer.qkv.weight, std=0.6)
    nn.init.normal_(model.pos_embed, std=1.0)
    images = torch.randn(20, 1, 4, 4)
    reader = OwnReader(model)
    found = head_positions(reader, [(part, None) for part in images.split(7)])
    kept = {}
    with torch.no_grad(), reader.exposed(kept.__setitem__):
        reader.logits(images)
    p = kept[0].double()[:, :, 1:, 1:]
    p = p / p.sum(-1, keepdim=True)
    m = unfold_offsets(found.maps[0], (4, 4))
    residual = (p - m).square().sum((0, 2, 3)) / (p - 1 / 16).square().sum((0, 2, 3))
    torch.testing.assert_close(found.variance[0], 1 - residual, rtol=1e-4, atol=1e-6)
    q = m / m.sum(-1, keepdim=True)
    left = torch.xlogy(p, p / q).sum(-1).mean((0, 2)) / torch.xlogy(p, p * 16).sum(-1).mean((0, 2))
    torch.testing.assert_close(found.divergence[0], 1 - left, rtol=1e-4, atol=1e-5)
    assert (found.variance > 0.02).all()
    assert (found.divergence < 0.9).all()
    torch.testing.assert_close(found.rows[0].float(), kept[0][:, :, :1].mean(0))
    for kind in REPLACEMENTS:
        whole = found.replaced(kind, 0, 3)
        torch.testing.assert_close(whole.sum(-1), torch.ones_like(whole[..., 0]))
        torch.testing.assert_close(whole[:, 1:, :1], found.columns[0][:, None].expand(-1, 16, -1))
    window = found.patches("window", 0, 3).reshape(4, 4, 4, 4, 4)
    assert window[:, 0, 0, 2:].max() < 1e-9
    torch.testing.assert_close(found.patches("other", 0, 3)[3], found.patches("map", 0, 3)[0])


def test_uniform_heads_have_nothing_to_explain():
    model = create_model("vit_digits", depth=1).eval()
    nn.init.zeros_(model.blocks[0].mixer.qkv.weight)
    found = head_positions(OwnReader(model), [(torch.randn(3, 1, 8, 8), None)])
    assert found.variance.isnan().all()
    assert found.divergence.isnan().all()
    torch.testing.assert_close(found.maps, torch.full_like(found.maps, 1 / 64), rtol=1e-5, atol=0)
    with pytest.raises(ValueError, match="at least one image"):
        head_positions(OwnReader(model), [])


def aft(**fields):
    torch.manual_seed(0)
    fields = {"depth": 2, "embed_dim": 16, "num_heads": 2, "window_size": 3, "position_bias": "free"} | fields
    model = VisionModel(model_config("aft_conv_digits", **fields)).eval()
    for block in model.blocks:
        for parameter in block.mixer.parameters():
            nn.init.normal_(parameter, std=0.7)
        if "keep" in fields:
            block.mixer.position_bias.offset[:, 1:] = torch.tensor([1, -1])
    return model


@pytest.mark.parametrize(
    "fields",
    [{}, {"outside": "none"}, {"use_query": False}, {"window_size": 17}, {"keep": (2, 1)}, {"position_bias": "single"}],
)
def test_an_aft_conv_is_attention_by_its_own_weights(fields):
    reader = AFTReader(aft(**fields))
    assert reader.verify(torch.randn(3, 1, 8, 8)) < 1e-5
    with pytest.raises(ValueError, match="must be an AFT-conv"):
        AFTReader(create_model("vit_digits", depth=1))


def test_removing_a_part_equals_a_model_without_it():
    model, images = aft(), torch.randn(3, 1, 8, 8)
    reader, before = AFTReader(model), model(images)
    bias = model.blocks[1].mixer.position_bias.weight
    strongest = divmod(int(bias[1].expm1().abs().argmax()), 3)

    def silence(key):
        key.weight[1].zero_()
        key.bias[1].zero_()

    changes = {
        "no bias": lambda mixer: mixer.position_bias.weight[1].zero_(),
        "no offset": lambda mixer: mixer.position_bias.weight[1][strongest].zero_(),
        "no keys": lambda mixer: silence(mixer.key),
    }
    assert set(changes) == set(REMOVALS)
    with torch.no_grad():
        for part, change in changes.items():
            other = aft()
            change(other.blocks[1].mixer)
            with without(reader, part, [(1, 1)]):
                torch.testing.assert_close(model(images), other(images))
                assert not torch.allclose(model(images), before, rtol=0, atol=1e-5)
        torch.testing.assert_close(model(images), before)
    with pytest.raises(ValueError, match="part must be one of"), without(reader, "no head", [(0, 0)]):
        pass


def test_an_aft_head_of_bias_alone_is_positional():
    model = aft(window_size=15)
    for block in model.blocks:
        nn.init.zeros_(block.mixer.key.weight)
    images = torch.randn(8, 1, 8, 8)
    batches = own_labels(AFTReader(model), [(images, None)])
    reader = AFTReader(model)
    result = explain(reader, batches, batches, plan=plan_for(reader, layers=[1], labels="model"))
    assert (result.positions.divergence > 0.9).all(), "all but the border"
    assert result.intact.accuracy == 1
    assert len(result.single["no keys"]) == 1
    assert max(abs(effect.loss) for effect in result.single["no keys"][0]) < 1e-6
    assert max(abs(effect.loss) for effect in result.single["map"][0]) < max(
        abs(effect.loss) for effect in result.single["no bias"][0]
    )


def test_paired_effects_of_known_outcomes():
    right = np.array([True] * 80 + [False] * 20)
    whole = Outcome(right, np.zeros(100))
    same = compare(whole, whole)
    assert same.change == 0
    assert same.interval == (pytest.approx(-1.959964 / 102), pytest.approx(1.959964 / 102))
    worse = compare(whole, Outcome(np.roll(right, 10) & right, np.full(100, 0.5)))
    assert (worse.accuracy, worse.change) == (pytest.approx(0.7), pytest.approx(-0.1))
    assert worse.interval[0] < -0.1 < worse.interval[1] < 0
    assert worse.loss_interval == (0.5, 0.5)
    with pytest.raises(ValueError, match="same images"):
        compare(whole, Outcome(right[:5], np.zeros(5)))


def test_paired_intervals_cover_at_their_level():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(500):
        draw = rng.choice(3, 200, p=[0.9, 0.07, 0.03])
        low, high = compare(Outcome(draw != 2, np.zeros(200)), Outcome(draw != 1, np.zeros(200))).interval
        hits += low <= 0.03 - 0.07 <= high
    assert 0.93 < hits / 500 < 0.985


@pytest.mark.parametrize("name", ["vit_digits", "aft_conv_digits"])
def test_the_command_writes_figures_and_records(name, tmp_path, capsys, monkeypatch):
    torch.manual_seed(0)
    model = create_model(name, depth=1, embed_dim=16, num_heads=2)
    path = save_checkpoint(tmp_path / "c", model, data=load_data("digits").record(), recipe={}, seed=0, metrics=[])
    words = ["explain", str(path), "--images", "8", "--layers", "[0]", "--out", str(tmp_path / "an out")]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "own map" in printed
    for kind in ("json", "png", "svg", "html"):
        assert (tmp_path / "an out" / f"explain.{kind}").stat().st_size > 1000
        assert f"explain.{kind}" in printed
    record = json.loads((tmp_path / "an out" / "explain.json").read_text())
    assert set(record["single"]) == {*REPLACEMENTS, *(REMOVALS if "aft" in name else ())}
    assert record["images"] == record["calibration_images"] == 8
    assert shlex.split(record["command"]) == ["aft-lens", *words]
    with monkeypatch.context() as patch:
        patch.setattr("analyses.explain.opened.edited_outcome", None)  # nothing is measured twice
        assert main(words) == 0
        assert json.loads((tmp_path / "an out" / "explain.json").read_text()) == record
        assert main([*words, "--window", "1"]) == 2
        assert "runs failed" in capsys.readouterr().err
    setup = Setup(str(path), "digits", 8, 8, 0, "data")
    work = partial(
        measured, Edited("map", ((0, 1),)), setup=setup, plan=plan_for(open_reader(str(path))), folder=tmp_path
    )
    found = pickle.loads(pickle.dumps(work))()  # as another process gets it
    assert (
        found.loss.tolist()
        == Outcome.read(json.loads(json.dumps(vars(found), default=np.ndarray.tolist))).loss.tolist()
    )
    with pytest.raises(ValueError, match="window must be odd"):
        command(str(path), images=2, window=4)
    with pytest.raises(ValueError, match="layers must be from 0 to 0"):
        command(str(path), images=2, layers=[1])
    if name == "vit_digits":
        few = create_model(name, depth=1, embed_dim=16, num_heads=2, num_classes=2)
        save_checkpoint(path, few, data=load_data("digits").record(), recipe={}, seed=0, metrics=[])
        with pytest.raises(ValueError, match="--labels model"):
            command(str(path), images=8, out=tmp_path / "few")
        command(str(path), images=8, labels="model", out=tmp_path / "out")
        assert "agreement 100.00 %" in capsys.readouterr().out
