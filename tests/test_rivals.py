"""Each rival of the tables is the real thing, and each runs in the same skeleton."""

import pytest
import torch
import torch.nn.functional as F

from aft_lens.layers import optional
from aft_lens.layers.mixer import MIXERS
from aft_lens.layers.mixers.lambda_layer import Lambda
from aft_lens.layers.mixers.linear_attention import (
    LinearAttention,
    elu_features,
    linear_attention,
    orthogonal_features,
    performer,
    softmax_features,
)
from aft_lens.layers.mixers.reformer import Reformer
from aft_lens.layers.mixers.sparse_attention import SparseAttention, local2d_mask, sparse_attention, strided_mask
from aft_lens.layers.mixers.synthesizer import Synthesizer
from aft_lens.models import create_model
from aft_lens.models.resnet import resnet50


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("mixer", MIXERS.names())
def test_every_mixer_trains_in_the_same_skeleton(mixer):
    torch.manual_seed(0)
    heads = 1 if mixer in ("aft_full", "aft_local", "aft_simple") else 2
    overrides = {"mixer": mixer, "depth": 2, "embed_dim": 16, "num_heads": heads, "img_size": 4, "window_size": 3}
    model = create_model("vit_digits", bias_rank=4, **overrides)
    image, label = torch.randn(4, 1, 4, 4), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        loss = F.cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not missing


@pytest.mark.parametrize("causal", [False, True])
def test_linear_attention_is_its_quadratic_form(causal):
    query, key, value = (draw(2, 3, 130, 4, seed=i) for i in range(3))
    query, key = elu_features(query), elu_features(key)
    weight = query @ key.transpose(-1, -2)
    weight = weight.tril() if causal else weight
    expected = (weight / weight.sum(-1, keepdim=True)) @ value
    torch.testing.assert_close(linear_attention(query, key, value, causal=causal), expected)
    layer = LinearAttention(6, 2)
    assert layer.projection is None
    layer.redraw()


def test_performer_converges_to_softmax_attention():
    torch.manual_seed(0)
    query, key, value = (0.5 * draw(4, 2, 20, 8, seed=i).float() for i in range(3))
    exact = F.scaled_dot_product_attention(query, key, value)
    errors = []
    for features in (8, 128, 2048):
        found = []
        for _ in range(4):
            projection = orthogonal_features(features, 8)
            mixed = linear_attention(
                softmax_features(query, projection, is_query=True),
                softmax_features(key, projection, is_query=False),
                value,
            )
            found.append((mixed - exact).norm() / exact.norm())
        errors.append(torch.stack(found).mean().item())
    assert errors[2] < 0.1
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2


def test_performer_features_are_orthogonal_and_redrawn():
    projection = orthogonal_features(12, 8)
    first = F.normalize(projection[:8], dim=1)
    torch.testing.assert_close(first @ first.T, torch.eye(8), atol=1e-5, rtol=0)
    layer = performer(16, 2)
    assert layer.projection is not None
    assert layer.projection.shape == (16, 8)
    before = layer.projection.clone()
    layer.redraw()
    assert not torch.equal(before, layer.projection)


def test_local2d_reads_one_memory_block_a_query_block():
    mask = local2d_mask((6, 6), 2, 1)
    readable = mask.view(6, 6, 6, 6)
    assert torch.equal(readable[2, 2], readable[3, 3])
    assert readable[2, 2].nonzero().tolist() == [[y, x] for y in range(1, 5) for x in range(1, 5)]
    assert readable[0, 0].nonzero().tolist() == [[y, x] for y in range(3) for x in range(3)]
    assert not local2d_mask((6, 6), 2, 1, causal=True).triu(1).any()


def test_strided_reads_its_surroundings_and_every_strideth_source():
    mask = strided_mask(20, 5, causal=True)
    assert mask[13].nonzero().flatten().tolist() == [3, 8, 9, 10, 11, 12, 13]
    assert mask.sum() < 20 * 20 / 2
    reach = mask.float() @ mask.float()
    assert (reach.tril() > 0).sum() == 20 * 21 / 2, "two steps reach every earlier position (Child et al. 4.2)"


def test_masked_attention_reads_no_source_beyond_its_mask():
    torch.manual_seed(0)
    mixer = sparse_attention("local2d", 8, 2, (6, 6), 3, class_token=False)
    x = torch.randn(1, 36, 8)
    changed = x.clone()
    changed[:, 35] += 5
    same = torch.isclose(mixer(x, (6, 6)), mixer(changed, (6, 6)), atol=1e-6).all(-1)[0]
    assert torch.equal(same, ~mixer.mask[:, 35])
    full = SparseAttention(8, 2, torch.ones(36, 36, dtype=torch.bool))
    query, key, value = full.qkv(x).reshape(1, 36, 3, 2, 4).permute(2, 0, 3, 1, 4)
    exact = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(1, 36, 8)
    torch.testing.assert_close(full(x, (6, 6)), full.proj(exact))
    with pytest.raises(ValueError, match="leaves target 0 no source"):
        SparseAttention(8, 2, torch.zeros(3, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="pattern must be one of"):
        sparse_attention("spiral", 8, 2, (6, 6), 3)


def test_synthesizer_predicts_a_targets_weights_from_that_target_alone():
    torch.manual_seed(0)
    mixer, seen = Synthesizer(8, 2, 5), []
    mixer.hook_attention.register_forward_hook(lambda _module, _args, weight: seen.append(weight))
    x = torch.randn(1, 5, 8)
    mixer(x, (1, 5))
    x[:, 3] += 1
    mixer(x, (1, 5))
    same = torch.isclose(seen[0], seen[1]).all(-1)[0]
    assert same.tolist() == [[True, True, True, False, True]] * 2
    torch.testing.assert_close(seen[0].sum(-1), torch.ones(1, 2, 5))
    with pytest.raises(ValueError, match="at most 5 tokens"):
        mixer(torch.randn(1, 6, 8), (1, 6))


def test_reformer_with_two_buckets_is_shared_key_attention():
    """Two buckets, each reading itself and its neighbour, read everything: LSH is then exact."""
    torch.manual_seed(0)
    mixer = Reformer(8, 2, bucket_size=6, n_hashes=1).eval()
    x = torch.randn(2, 12, 8)
    split = [part.reshape(2, 12, 2, 4).transpose(1, 2) for part in (mixer.query_key(x), mixer.value(x))]
    score = split[0] @ F.normalize(split[0], dim=-1).transpose(-1, -2) * 4**-0.5
    score = score.masked_fill(torch.eye(12, dtype=torch.bool), -5e4)
    expected = mixer.proj((score.softmax(-1) @ split[1]).transpose(1, 2).reshape(2, 12, 8))
    torch.testing.assert_close(mixer(x, (3, 4)), expected, atol=1e-5, rtol=1e-4)
    assert mixer(x[:, :11], (1, 11)).shape == (2, 11, 8)


def test_lambda_layer_is_linear_in_its_lambdas():
    """Its output is q_n . (sum_m softmax(k)_m v_m + sum_m e_nm v_m), Eq. 1 of Bello 2021."""
    torch.manual_seed(0)
    mixer = Lambda(8, 2, 3, dim_k=4).eval()
    x = torch.randn(1, 9, 8)
    inner = mixer.mix
    image = x.transpose(1, 2).reshape(1, 8, 3, 3)
    query = inner.norm_q(inner.to_q(image)).reshape(2, 4, 9)
    key = inner.to_k(image).reshape(4, 9).softmax(-1)
    value = inner.norm_v(inner.to_v(image)).reshape(4, 9)
    position = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    offset = position - position[:, None] + 2
    embedding = inner.rel_pos_emb[offset[..., 0], offset[..., 1], :, 0]
    content = key @ value.T
    places = torch.einsum("nmk,vm->nkv", embedding, value)
    mixed = torch.einsum("hkn,nkv->hvn", query, content + places).reshape(1, 8, 9)
    torch.testing.assert_close(mixer(x, (3, 3)), mixer.proj(mixed.transpose(1, 2)), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="grid must be 3 x 3"):
        mixer(x, (1, 9))


def test_a_missing_package_names_the_extra(monkeypatch):
    def absent(name, *args):
        raise ImportError(name)

    monkeypatch.setattr(optional, "import_module", absent)
    for build in (lambda: Reformer(8, 2), lambda: Lambda(8, 2, 3)):
        with pytest.raises(ImportError, match=r"aft-lens\[baselines\]"):
            build()


def test_resnet50_has_table_7s_size_and_takes_grey_images():
    with torch.device("meta"):
        assert sum(p.numel() for p in resnet50().parameters()) == 25_557_032
    model = resnet50(num_classes=3, in_chans=1).eval()
    assert model(torch.randn(1, 1, 32, 32)).shape == (1, 3)
