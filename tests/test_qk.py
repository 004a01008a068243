"""Logits split into place and content: exact sums, heads whose parts are known, every adapter, the command."""

import json

import numpy as np
import pytest
import timm
import torch
from test_compact import MODELS, images, strong
from torch import nn

from aft_lens.extraction import OwnReader, as_reader
from aft_lens.models import VisionModel, model_config
from analyses.qk import qk
from analyses.qk.parts import GROUPS, PARTS, _covariance, _offset_share, split_logits
from analyses.scan import scan
from app.cli import main

SIDE, N, C, H = 4, 16, 6, 2


def exact(query, key, queries, keys):
    """The six covariances by writing every logit out, in float64."""
    query, key, queries, keys = (x.double() for x in (query, key, queries, keys))
    mean = queries.mean(2, keepdim=True)
    left = [mean.expand_as(query), queries - mean, query - queries]
    right = [keys - keys.mean(2, keepdim=True), key - keys]
    whole = query @ key.mT
    whole = whole - whole.mean(-1, keepdim=True)
    parts = [a @ u.mT for a in left for u in right]
    parts = [one - one.mean(-1, keepdim=True) for one in parts]
    assert torch.allclose(sum(parts), whole)  # nothing of the logits is left out
    return torch.stack([(one * whole).mean((2, 3)) for one in parts], -1), whole


def test_parts_are_those_of_logits_written_out():
    torch.manual_seed(0)
    tensors = [torch.randn(3, H, N, C) + torch.randn(1, 1, 1, C) for _ in range(4)]
    found = _covariance(*tensors)
    right, whole = exact(*tensors)
    assert torch.allclose(found, right, rtol=1e-4, atol=1e-5)
    assert torch.allclose(found.sum(-1), whole.square().mean((2, 3)), rtol=1e-4)


class Place(nn.Module):
    """In place of a joint projection: queries and keys that are made of given parts, and values of the tokens."""

    def __init__(self, of_query, of_key):
        super().__init__()
        torch.manual_seed(1)
        self.parts = of_query, of_key
        self.places = {name: torch.randn(N + 1, C * H) for name in ("query", "key")}
        for place in self.places.values():
            place -= place[1:].mean(0)  # or all queries share something
        self.projections = {name: torch.randn(C, C * H) for name in ("query", "key")}
        self.shared = torch.randn(C * H)

    def forward(self, x):
        made = []
        for name, kind in zip(("query", "key"), self.parts):
            part = {"all": self.shared.expand(*x.shape[:2], -1), "place": self.places[name].expand(len(x), -1, -1),
                    "content": x[..., :C] @ self.projections[name]}  # fmt: skip
            made.append(part[kind])
        return torch.cat([*made, x], -1)


def reader_of(of_query, of_key):
    """One layer of our ViT with such queries and keys; the tokens that enter it are noise without a place."""
    torch.manual_seed(0)
    model = VisionModel(model_config("vit_digits", img_size=4, depth=1, embed_dim=C * H, num_heads=H)).eval()
    model.blocks[0].mixer.qkv = Place(of_query, of_key)
    model.blocks[0].norm1 = nn.Identity()
    model.stem = nn.Conv2d(1, C * H, 1, bias=False)
    nn.init.zeros_(model.pos_embed)
    return OwnReader(model)


@pytest.mark.parametrize("part", PARTS)
def test_a_head_of_one_part_is_found_to_be_that(part):
    """The tokens of an image are independent noise: what is put in is all that there is, but for the mean of few."""
    reader = reader_of(*part.split(", "))
    torch.manual_seed(2)
    found = split_logits(reader, torch.randn(400, 1, 4, 4).split(50))
    shares = found.shares[0]
    np.testing.assert_allclose(shares.sum(-1), 1)
    assert (shares[:, PARTS.index(part)] > 0.93).all(), shares
    groups = {name: found.group(name) for name in GROUPS}
    np.testing.assert_allclose(sum(groups.values()), 1)
    low, high = found.intervals("position")
    assert ((low <= groups["position"]) & (groups["position"] <= high)).all()


def test_offsets_of_mean_logits():
    """A function of offset plus one of the target is explained wholly, another map by chance alone."""
    y, x = (axis.flatten().double() for axis in torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij"))
    waves = torch.stack([torch.cos(y), torch.sin(y), torch.cos(2 * x), torch.sin(2 * x)], -1)  # q . k = cos of offsets
    target = torch.cat([waves, torch.randn(N, 1).double()], -1)  # and of the target alone
    source = torch.cat([waves, torch.ones(N, 1).double()], -1)
    assert _offset_share(target[None], source[None], (SIDE, SIDE)) == pytest.approx(1, abs=1e-6)
    torch.manual_seed(0)
    assert _offset_share(*torch.randn(2, 1, N, 8).double(), (SIDE, SIDE))[0] < 0.7
    constant = _offset_share(torch.ones(1, N, 2).double(), torch.ones(1, N, 2).double(), (SIDE, SIDE))
    assert np.isnan(constant[0])


@pytest.mark.parametrize("name", MODELS)
def test_every_library_has_queries_and_keys(name):
    reader = as_reader(MODELS[name]())
    found = qk(reader, [images(reader, seed=1), images(reader)])
    assert found.parts.covariance.shape == (8, 2, reader.num_heads, 6)
    np.testing.assert_allclose(found.parts.shares.sum(-1), 1, rtol=1e-4)
    assert found.explained.shape == (2, reader.num_heads)


def test_logits_with_more_in_them_are_refused():
    model = strong(timm.create_model(
        "vit_relpos_small_patch16_224", img_size=28, patch_size=7, embed_dim=24, depth=1, num_heads=2, num_classes=3
    ))  # fmt: skip
    with pytest.raises(ValueError, match=r"queries and keys of RelPosAttention are not read"):
        qk(model, [torch.randn(4, 3, 28, 28)])
    reader = as_reader(MODELS["hf"]())
    with pytest.raises(ValueError, match="images must be 4 or more"):
        qk(reader, [images(reader, 2)])
    twisted = reader.queries_keys
    reader.queries_keys = lambda layer, x: (2 * twisted(layer, x)[0], twisted(layer, x)[1])
    with pytest.raises(ValueError, match=r"differs from softmax\(QK'\)"):
        qk(reader, [images(reader)])


def test_a_scan_has_them(tmp_path):
    reader = reader_of("place", "place")
    torch.manual_seed(2)
    found = scan(reader, torch.randn(24, 1, 4, 4).split(6))
    said = [one for one in found.findings if one.kind == "places"]
    assert {one.place for one in said} == {"head 0.0", "head 0.1"}
    assert said[0].words.startswith("places alone make 100 % [100, 100] of the variance of head 0.")
    found.save(tmp_path)
    record = json.loads((tmp_path / "scan.json").read_text())
    assert record["logits_of_images"] == 24
    assert record["heads"][0]["logits_position"] == pytest.approx(1)
    assert "that rest on places alone" in (tmp_path / "scan.html").read_text()


def test_the_command(tmp_path, capsys):
    assert main(["qk", "digits-vit", "--images", "24", "--out", str(tmp_path)]) == 0
    assert "content and position in QK' over 24 images of digits" in capsys.readouterr().out
    record = json.loads((tmp_path / "qk.json").read_text())
    assert np.shape(record["shares"]) == (3, 4, 6)
    np.testing.assert_allclose(sum(np.array(one) for one in record["groups"].values()), 1, rtol=1e-4)
