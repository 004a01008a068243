"""Heads replaced by what they did, by offsets, kernels and nothing: exact where it must be, known where it can be."""

from contextlib import contextmanager

import pytest
import timm
import torch
from tiny_dinov2 import dinov2
from torch import nn
from torchvision.models.vision_transformer import VisionTransformer

from aft_lens.extraction import AttentionReader, as_reader, can_resume
from aft_lens.models import create_model
from analyses.ablate.agreement import _cka, agreement, linear_cka
from analyses.ablate.bench import Bench
from analyses.ablate.calibration import _Sums, calibrate, neighbours
from analyses.ablate.replacer import Replacer, kept, matrices, same
from analyses.ablate.rung import COUNTED, KINDS, Rung

GRID, N, HEADS, WIDTH = (4, 5), 20, 2, 6
ALL = Rung("offsets", 7 * 9)


class Layer(nn.Module):
    """Head 0 attends as the offset says on the grid's torus, whatever the image; head 1 as the image says."""

    def __init__(self, prefix):
        super().__init__()
        self.value, self.proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.point, self.prefix = nn.Identity(), prefix
        wheel = (6 * torch.rand(N)).softmax(0).reshape(GRID)
        y, x = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, GRID), indexing="ij"))
        torus = wheel[(y[None] - y[:, None]) % GRID[0], (x[None] - x[:, None]) % GRID[1]]
        self.register_buffer("torus", torus / torus.sum(1, keepdim=True))

    def weights(self, x):
        p = self.prefix
        found = (3 * x @ x.mT).softmax(-1)[:, None].repeat(1, HEADS, 1, 1)
        found[:, 0] = 1 / (p + N)
        found[:, 0, p:, :p] = 0.1
        found[:, 0, p:, p:] = (1 - 0.1 * p) * self.torus
        return found

    def forward(self, x):
        read = self.point(self.weights(x)) @ self.value(x).unflatten(2, (HEADS, -1)).transpose(1, 2)
        return self.proj(read.transpose(1, 2).flatten(2))


class Model(nn.Module):
    """Two residual layers and a classifier of a mean that weighs places."""

    def __init__(self, prefix=1):
        super().__init__()
        torch.manual_seed(0)
        self.prefix = prefix
        self.blocks = nn.ModuleList(Block(prefix) for _ in range(2))
        self.head = nn.Linear(WIDTH, 3)
        self.register_buffer("share", torch.rand(prefix + N, 1))

    def forward(self, images):
        x = images.flatten(2).transpose(1, 2)
        x = torch.cat([x.new_ones(len(x), self.prefix, WIDTH), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.head((self.share * x).mean(1))


class Block(nn.Module):
    def __init__(self, prefix):
        super().__init__()
        self.mixer = Layer(prefix)

    def forward(self, x):
        return x + self.mixer(x)


class Toy(AttentionReader):
    def __init__(self, prefix=1):
        model = Model(prefix).eval()
        layers = [block.mixer for block in model.blocks]
        super().__init__(
            "toy", model, layers, grid=GRID, prefix=prefix, num_heads=HEADS, image_size=GRID, in_chans=WIDTH
        )

    @contextmanager
    def exposed(self, sink):
        handles = [
            layer.point.register_forward_hook(lambda _m, _i, output, number=number: sink(number, output))
            for number, layer in enumerate(self.layers)
        ]
        yield
        for handle in handles:
            handle.remove()

    def values(self, layer, x):
        return self.layers[layer].value(x).unflatten(2, (HEADS, -1)).transpose(1, 2)

    def project(self, layer, x, mixed):
        return self.layers[layer].proj(mixed)


def noise(count=12, size=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, WIDTH, *GRID, generator=generator)
    labels = torch.arange(count) % 3
    return list(zip(images.split(size), labels.split(size)))


@pytest.fixture(scope="module", params=[0, 1, 3])
def toy(request):
    reader = Toy(request.param)
    return reader, calibrate(reader, noise())


@torch.no_grad()
def change(reader, calibration, edits, batches=None):
    """Largest change of the logits by an edit, as a fraction of the largest logit."""
    worst, replacer, first = 0.0, Replacer(reader, calibration), 0
    for images, _ in batches or noise(seed=2):
        right = reader.logits(images)
        with replacer.replaced(edits, first):
            worst = max(worst, float((reader.logits(images) - right).abs().max() / right.abs().max()))
        first += len(images)
    return worst


def heads_of(reader):
    return [(layer, head) for layer in range(len(reader.layers)) for head in range(reader.num_heads)]


def readers():
    tiny = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 28, "patch_size": 7, "num_classes": 3}
    torch.manual_seed(0)
    yield as_reader(dinov2())
    yield as_reader(timm.create_model("vit_tiny_patch16_224", **tiny).eval())
    yield as_reader(timm.create_model("beit_base_patch16_224", **tiny).eval())
    yield as_reader(timm.create_model("eva02_tiny_patch14_224", **tiny).eval())
    yield as_reader(
        VisionTransformer(28, 7, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=3).eval()
    )
    yield as_reader(create_model("vit_digits", depth=2, in_chans=3, img_size=28, patch_size=7).eval())


@pytest.mark.parametrize("place", range(6))
def test_replaced_by_its_own_attention_no_model_changes_and_passes_that_resume_agree(place):
    """Every adapter; then every rung, from the first layer on and from what entered the second."""
    reader = list(readers())[place]
    torch.manual_seed(1)
    batches = [(torch.randn(4, 3, 28, 28), torch.arange(4) % 3)] * 2
    calibration = calibrate(reader, batches)
    assert change(reader, calibration, same(heads_of(reader), Rung("attention")), batches) < 1e-5
    assert can_resume(reader, batches[0][0])
    bench = Bench(reader, calibration, batches, classes=False)
    for kind in KINDS:
        edits = {(0, 1): Rung("map"), (1, 0): Rung(kind, 2 if kind in COUNTED else 0)}
        whole, resumed = bench.row(edits, 0), bench.row(edits, 1)
        assert whole.cosines == pytest.approx(resumed.cosines, abs=1e-5)


def test_all_offsets_of_a_head_that_knows_nothing_else_change_nothing(toy):
    reader, calibration = toy
    for rung in (Rung("map"), ALL, Rung("centre", 63), Rung("random", 63)):
        assert change(reader, calibration, {(0, 0): rung, (1, 0): rung}) < 1e-5
        assert change(reader, calibration, {(0, 1): rung}) > 1e-3, "a head that looks at the image is not its map"
    assert change(reader, calibration, {(0, 0): Rung("offsets", 1)}) > 1e-3


def test_rungs_keep_the_offsets_that_they_say(toy):
    _, calibration = toy
    positions = calibration.positions
    for layer in range(2):
        strongest = positions.maps[layer].flatten(1).topk(3).values.sum(1)
        torch.testing.assert_close(kept(positions, Rung("offsets", 3), layer).sum((1, 2)), strongest)
        near = kept(positions, Rung("centre", 5), layer)
        assert (near[:, 3, 3:6] > 0).all()
        assert (near[:, 2:5, 4] > 0).all()
        few, more = (kept(positions, Rung("random", count), layer, seed=4) for count in (2, 6))
        assert ((few > 0).sum((1, 2)) == 2).all()
        assert ((more > 0) | (few == 0)).all()
        assert not torch.equal(few, kept(positions, Rung("random", 2), layer, seed=5))
        for rung in (Rung("map"), Rung("offsets", 1), Rung("uniform")):
            rows = matrices(positions, rung, layer).sum(-1)
            torch.testing.assert_close(rows, torch.ones_like(rows))


def test_a_target_without_its_offset_reads_all_patches_alike(toy):
    reader, calibration = toy
    p = reader.prefix
    calibration.positions.maps[0, 1, 3, 5] += 1  # of 7 x 9 offsets: the right neighbour
    read = matrices(calibration.positions, Rung("offsets", 1), 0)[1]
    calibration.positions.maps[0, 1, 3, 5] -= 1
    share = 1 - calibration.positions.columns[0, 1].sum()
    assert read[p, p + 1] == pytest.approx(float(share))
    torch.testing.assert_close(read[p + 4, p:], torch.full((N,), 1 / N, dtype=torch.float64) * share)


@torch.no_grad()
def test_ablations_give_what_they_say(toy):
    reader, calibration = toy
    p, replacer = reader.prefix, Replacer(reader, calibration, seed=3)
    images = noise(seed=2)[0][0]
    seen = {}
    with reader.remixed(lambda layer, x, a: seen.setdefault(layer, (reader.values(layer, x), a)) and None):
        reader.logits(images)
    values, attention = seen[1]
    outputs = []  # of head 1 on the calibration images
    for batch, _ in noise():
        with reader.remixed(lambda layer, x, a: outputs.append((a @ reader.values(layer, x))[:, 1]) if layer else None):
            reader.logits(batch)
    outputs = torch.cat(outputs)
    mean = replacer.read(Rung("mean"), 1, [1], values[:, [1]], attention[:, [1]], 0)
    torch.testing.assert_close(mean[:, 0, :p], outputs[:, :p].mean(0).expand(len(images), -1, -1))
    torch.testing.assert_close(mean[:, 0, p:], outputs[:, p:].mean((0, 1)).expand(len(images), N, -1))
    other = replacer.read(Rung("resample"), 1, [1], values[:, [1]], attention[:, [1]], 0)[:, 0]
    assert all(any(torch.allclose(one, output, atol=1e-6) for output in outputs) for one in other)
    later = replacer.read(Rung("resample"), 1, [1], values[1:, [1]], attention[1:, [1]], 1)[:, 0]
    torch.testing.assert_close(later, other[1:])
    assert not replacer.read(Rung("zero"), 1, [1], values[:, [1]], attention[:, [1]], 0).any()


def test_a_kernel_that_heads_are_is_found():
    """Sums of images whose outputs are a depth-wise 3 x 3 convolution of the values, prefix share and constant."""
    torch.manual_seed(0)
    kernel, columns = torch.randn(HEADS, 3, 10), torch.tensor([[0.2], [0.5]])
    sums = _Sums(HEADS, 1, N, 3, torch.device("cpu"))
    for _ in range(4):
        values = torch.randn(5, HEADS, 1 + N, 3)
        wanted = torch.einsum("bhsck,hck->bhsc", neighbours(values[:, :, 1:], GRID), kernel[..., :9])
        wanted = wanted + kernel[..., 9][:, None] + columns[None, :, :, None] * values[:, :, :1]
        attention = _solving(values, torch.cat([values[:, :, :1], wanted], 2))
        sums.add(attention, values, columns, GRID)
    torch.testing.assert_close(sums.kernel(20), kernel, rtol=1e-3, atol=1e-3)


def _solving(values, wanted):
    """Any weights that make these outputs of these values."""
    return wanted @ torch.linalg.pinv(values)


def test_deviation_is_that_of_the_attention_over_images(toy):
    reader, calibration = toy
    assert calibration.deviation[:, 0].max() < 1e-4, "a head that no image changes"
    weights = []
    with torch.no_grad():
        for images, _ in noise():
            with reader.exposed(lambda layer, a: weights.append(a[:, 1]) if layer == 0 else None):
                reader.logits(images)
    patches = torch.cat(weights)[:, reader.prefix :, reader.prefix :]
    spread = (patches / patches.sum(-1, keepdim=True)).std(0, unbiased=False).mean() * N
    assert float(calibration.deviation[0, 1]) == pytest.approx(float(spread), rel=1e-3)


def test_calibration_comes_back_from_its_file(tmp_path, toy):
    reader, calibration = toy
    calibration.save(tmp_path / "found.safetensors")
    read = type(calibration).load(tmp_path / "found.safetensors")
    edits = same(heads_of(reader), Rung("kernel"))
    assert change(reader, read, edits) == change(reader, calibration, edits)
    assert (read.positions.grid, read.positions.images) == (GRID, 12)


def test_agreement_of_features():
    torch.manual_seed(0)
    before = torch.randn(40, 8)
    turn = torch.linalg.qr(torch.randn(8, 8)).Q
    assert linear_cka(before, 3 * before @ turn) == pytest.approx(1)
    after = before + torch.randn(40, 8)
    x, y = (one - one.mean(0) for one in (before, after))
    by_hand = float((y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm()))
    assert linear_cka(before, after) == pytest.approx(by_hand, rel=1e-5)
    found = agreement(before, after)
    assert found.cka == pytest.approx(by_hand, rel=1e-5)
    assert found.cka_interval[0] < found.cka < found.cka_interval[1] + 0.1
    same_ones = agreement(before, before.clone())
    assert (same_ones.cosine, same_ones.neighbours) == (pytest.approx(1), 1)
    assert 10 / 39 - 0.15 < agreement(before, torch.randn(40, 8)).neighbours < 10 / 39 + 0.15, "as by chance"
    with pytest.raises(ValueError, match="same 3 images"):
        agreement(before[:2], before[:2])


def test_an_image_that_counts_twice_is_as_if_it_were_there_twice():
    torch.manual_seed(0)
    before, after = torch.randn(6, 3).double(), torch.randn(6, 3).double()
    weight = torch.tensor([[2.0, 1, 0, 1, 1, 3]], dtype=torch.float64)
    times = weight[0].long()
    expected = linear_cka(before.repeat_interleave(times, 0), after.repeat_interleave(times, 0))
    assert float(_cka(before, after, weight)[0]) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["maps", "offsets", "offsets:0", "map:3", "offsets:x", ""])
def test_unknown_rungs_are_refused(text):
    with pytest.raises(ValueError, match="a replacement must be one of attention, map, offsets:K"):
        Rung.read(text)


def test_rungs_have_words():
    words = {name: Rung.read(name).words for name in ("offsets:1", "offsets:4", "random:1", "centre:1", "centre:9")}
    assert words == {
        "offsets:1": "its strongest offset", "offsets:4": "its 4 strongest offsets",
        "random:1": "an offset drawn at random", "centre:1": "the offset nearest to the target",
        "centre:9": "the 9 offsets nearest to the target",
    }  # fmt: skip
