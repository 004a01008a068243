"""Implementations by other people: aft-pytorch (mild keys), labml-nn (causal local), RWKV-4's recurrence."""

import importlib.util
from importlib.metadata import PackageNotFoundError, files

import pytest
import torch

from aft_lens.ops import aft_conv, aft_full, aft_local, aft_simple


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def packaged(distribution, ending):
    """Load one file of an installed distribution without the package around it and what that would import."""
    try:
        found = [file for file in files(distribution) or [] if str(file).endswith(ending)]
    except PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed: make setup")
    spec = importlib.util.spec_from_file_location("oracle", found[0].locate())
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["AFTFull", "AFTSimple"])
def test_aft_pytorch_agrees_at_mild_keys(name):
    torch.manual_seed(0)
    layer = getattr(packaged("aft-pytorch", "aft_pytorch/aft_pytorch.py"), name)(19, 6, hidden_dim=8).double()
    layer.project = torch.nn.Identity()
    x = draw(2, 19, 6)
    inputs = layer.to_q(x), layer.to_k(x), layer.to_v(x)
    ours = aft_full(*inputs, layer.wbias) if name == "AFTFull" else aft_simple(*inputs)
    torch.testing.assert_close(ours, layer(x))


@pytest.mark.parametrize("window", [1, 4, 40])
def test_labml_agrees_on_causal_local(window):
    torch.manual_seed(0)
    layer = packaged("labml-nn", "transformers/aft/__init__.py").AFTLocal(6, 40, window).double()
    layer.output = torch.nn.Identity()
    with torch.no_grad():
        layer.pos_bias.copy_(draw(40, 40, seed=1))
    x = draw(40, 2, 6)
    mask = torch.ones(40, 40, dtype=torch.bool).tril().unsqueeze(-1)
    inputs = [part(x).transpose(0, 1) for part in (layer.query, layer.key, layer.value)]
    ours = aft_local(*inputs, layer.pos_bias, window, causal=True)
    torch.testing.assert_close(ours.transpose(0, 1), layer(query=x, key=x, value=x, mask=mask))


def rwkv4(key, value, bonus, decay):
    """RWKV-4's wkv, `b t d`: a state of (num, den, max) that decays, and a bonus for the current source."""
    rows, num, den = [], torch.zeros_like(key[:, 0]), torch.zeros_like(key[:, 0])
    peak = torch.full_like(key[:, 0], -1e38)
    for k, v in zip(key.unbind(1), value.unbind(1), strict=True):
        top = torch.maximum(peak, k + bonus)
        old, new = torch.exp(peak - top), torch.exp(k + bonus - top)
        rows.append((old * num + new * v) / (old * den + new))
        top = torch.maximum(peak - decay, k)
        old, new = torch.exp(peak - decay - top), torch.exp(k - top)
        num, den, peak = old * num + new * v, old * den + new, top
    return torch.stack(rows, 1)


@pytest.mark.parametrize("level", [1.0, 40.0])
def test_rwkv4_without_decay_is_causal_conv_with_window_one(level):
    key, value, bonus = level * draw(2, 90, 5), draw(2, 90, 5, seed=1), draw(5, seed=2)
    expected = rwkv4(key, value, bonus, 0.0)
    columns = key.transpose(1, 2), value.transpose(1, 2).unsqueeze(2)
    for form in ("auto", "matmul", "banded"):
        ours = aft_conv(None, *columns, bonus.unsqueeze(1), causal=True, implementation=form)
        torch.testing.assert_close(ours.squeeze(2).transpose(1, 2), expected)
