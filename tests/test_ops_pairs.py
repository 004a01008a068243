"""AFT-full, AFT-local and AFT-simple in every form: reference, causality, masks, extremes, dtypes, oracles."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aft_lens.ops import BiasFactors, aft_conv, aft_full, aft_local, aft_simple, reference
from aft_lens.ops.check import check_tokens
from aft_lens.ops.forms.spec import Spec
from aft_lens.ops.forms.weighted_mean import weighted_mean

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5}
"""float32 sums of a hundred terms lose about 1e-6, gradients a few times that."""


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def expected_mean(query, key, value, bias, window=None, **options):
    """The definition's, of biases given whole or as factors."""
    w = bias[0].double() @ bias[1].double().T if len(bias) == 2 else bias[0].double()
    if window is None:
        return reference.aft_full(query, key, value, w, **options)
    return reference.aft_local(query, key, value, w, window, **options)


def operator(query, key, value, bias, window=None, **options):
    w = bias[0] if len(bias) == 1 else BiasFactors(*bias)
    if window is None:
        return aft_full(query, key, value, w, **options)
    return aft_local(query, key, value, w, window, **options)


def by_form(form):
    """The same operator held to one form, whatever the shape."""

    def run(query, key, value, bias, window=None, *, causal=False, key_mask=None):
        b, t, d = key.shape
        k = key if key_mask is None else key.masked_fill(~key_mask.unsqueeze(-1), float("-inf"))
        k = k.transpose(1, 2).reshape(1, b * d, t)
        v = value.transpose(1, 2).reshape(1, b * d, 1, t)
        mean = weighted_mean(k, v, list(bias), Spec(form, (t,), -1 if window is None else window, causal))
        mean = mean.view(b, d, t).transpose(1, 2)
        return mean if query is None else query.sigmoid() * mean

    return run


def relative(found, expected):
    return ((found.double() - expected).norm() / expected.norm().clamp(min=1e-30)).item()


def assert_matches(run, query, key, value, bias, tolerance, **options):
    leaves = [x.detach().clone().requires_grad_() for x in (query, key, value, *bias)]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    found = run(*leaves[:3], leaves[3:], **options)
    expected = expected_mean(*exact[:3], exact[3:], **options)
    assert relative(found, expected) <= tolerance
    cotangent = draw(*expected.shape, seed=9)
    ours = torch.autograd.grad((found.double() * cotangent).sum(), leaves, materialize_grads=True)
    true = torch.autograd.grad((expected * cotangent).sum(), exact, materialize_grads=True)
    scale = max(gradient.norm().item() for gradient in true)
    for gradient, right in zip(ours, true, strict=True):
        assert (gradient.double() - right).norm().item() <= 4 * tolerance * scale


def biases(length, kind, seed=3, dtype=torch.float64):
    if kind == "free":
        return [draw(length, length, seed=seed, dtype=dtype)]
    return [draw(length, 5, seed=seed, dtype=dtype), draw(length, 5, seed=seed + 1, dtype=dtype)]


@pytest.mark.parametrize("length", [1, 2, 7, 63, 130])
@pytest.mark.parametrize("kind", ["free", "factorized"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 1, 4, 33, 200])
def test_full_and_local_match_the_reference(length, kind, causal, window):
    for dtype, tolerance in TOLERANCE.items():
        inputs = [draw(2, length, 3, seed=i, dtype=dtype) for i in range(3)]
        options = {"causal": causal, "window": window}
        assert_matches(operator, *inputs, biases(length, kind, dtype=dtype), tolerance, **options)
        if window is not None and length > 1:
            assert_matches(by_form("band"), *inputs, biases(length, kind, dtype=dtype), tolerance, **options)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("form", ["rows", "band"])
@pytest.mark.parametrize("kind", ["free", "factorized"])
def test_key_mask_hides_sources(causal, form, kind):
    query, key, value = (draw(3, 70, 2, seed=i) for i in range(3))
    mask = torch.rand(3, 70, generator=torch.Generator().manual_seed(4)) > 0.5
    mask[:, 0] = True
    mask[1, :50] = False
    mask[1, 0] = True
    assert_matches(by_form(form), query, key, value, biases(70, kind), 1e-12, window=6, causal=causal, key_mask=mask)
    simple = aft_simple(query, key, value, causal=causal, key_mask=mask)
    torch.testing.assert_close(simple, reference.aft_simple(query, key, value, causal=causal, key_mask=mask))


EXTREMES = ["ramp_up", "ramp_down", "apart", "dominant", "noise"]


def extreme(kind, length=130, d=2):
    """Float32 keys within 100 and biases within [-110, 100], at the edges of what is promised."""
    position = torch.linspace(-100, 100, length)
    key, bias = draw(1, length, d, dtype=torch.float32), draw(length, length, seed=1, dtype=torch.float32)
    if kind == "ramp_up":
        key = position[None, :, None] + 0 * key
    elif kind == "ramp_down":
        key = -position[None, :, None] + 0 * key
    elif kind == "apart":
        key[:, : length // 2] += 97
        key[:, length // 2 :] -= 97
        bias[:, : length // 2] -= 103
        bias[:, length // 2 :] += 96
    elif kind == "dominant":
        key[:, length // 3] = 100
        bias[:, length // 3] = -110
    else:
        key, bias = (40 * key).clamp(-100, 100), (45 * bias).clamp(-110, 100)
    return key, bias


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [None, 5])
def test_extreme_inputs_stay_within_the_promise(kind, causal, window):
    key, bias = extreme(kind)
    query, value = (draw(*key.shape, seed=i, dtype=torch.float32) for i in (5, 6))
    runs = [operator] if window is None else [by_form("rows"), by_form("band")]
    for run in runs:
        found = run(query, key, value, [bias], window=window, causal=causal)
        expected = expected_mean(query, key, value, [bias], window=window, causal=causal)
        assert found.isfinite().all()
        assert ((found - expected).abs() <= 1e-4 * expected.abs() + 1e-6).all()
        assert_matches(run, query, key, value, [bias], 2e-5, window=window, causal=causal)


@pytest.mark.parametrize("kind", EXTREMES)
def test_simple_survives_the_same_keys(kind):
    key, _ = extreme(kind)
    query, value = (draw(*key.shape, seed=i, dtype=torch.float32) for i in (5, 6))
    for causal in (False, True):
        found = aft_simple(query, key, value, causal=causal)
        assert relative(found, reference.aft_simple(query, key, value, causal=causal)) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("causal", [False, True])
def test_half_precision_inputs_are_summed_wider(dtype, kind, causal):
    key, bias = (x.to(dtype) for x in extreme(kind, length=64))
    query, value = (draw(*key.shape, seed=i, dtype=dtype) for i in (5, 6))
    for found, expected in (
        (aft_full(query, key, value, bias, causal=causal), reference.aft_full(query, key, value, bias, causal=causal)),
        (
            aft_local(query, key, value, bias, 5, causal=causal),
            reference.aft_local(query, key, value, bias, 5, causal=causal),
        ),
        (
            aft_simple(query, key, value, causal=causal),
            reference.aft_simple(query, key, value, causal=causal),
        ),
    ):
        assert found.dtype == dtype
        assert relative(found, expected) <= 3e-2


@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 100), st.sampled_from(["rows", "band", "simple"]), st.floats(-150, 150),
    st.sampled_from([1e6, 3e38, float("inf"), float("nan")]), st.integers(0, 2**20),
)  # fmt: skip
def test_the_future_moves_no_bit_of_the_past(length, form, level, factor, seed):
    query, key, value = (draw(1, length, 2, seed=seed + i, dtype=torch.float32) for i in range(3))
    bias = [draw(length, 3, seed=seed + 5, dtype=torch.float32), draw(length, 3, seed=seed + 6, dtype=torch.float32)]
    cut = 1 + seed % (length - 1)
    later = key.clone(), value.clone()
    later[0][:, cut:] += level
    later[1][:, cut:] *= factor

    def run(k, v):
        if form == "simple":
            return aft_simple(query, k, v, causal=True)
        return by_form(form)(query, k, v, bias, window=4, causal=True)

    assert torch.equal(run(key, value)[:, :cut], run(*later)[:, :cut])


def test_an_extreme_target_moves_no_bit_of_the_others():
    query, key, value = (draw(2, 40, 3, seed=i, dtype=torch.float32) for i in range(3))
    bias = draw(40, 40, seed=4, dtype=torch.float32)
    before = aft_full(query, key, value, bias)
    key[1, 3] = 100
    bias_row = bias.clone()
    bias_row[7, 3] = -110
    changed = aft_full(query, key, value, bias_row)
    assert torch.equal(before[0, :7], changed[0, :7])
    assert torch.equal(before[0, 8:], changed[0, 8:])


@pytest.mark.parametrize("kind", ["free", "factorized"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [0, 4])
def test_peaks_beyond_float64_are_exact_and_nan_stays_nan(kind, causal, window):
    """Keys of 1,000 nats that rise and fall, and biases that peak elsewhere, forward and every gradient."""
    inputs = [draw(2, 70, 3, seed=i, dtype=torch.float32) for i in range(3)]
    inputs[1] = 1000 * torch.linspace(-1, 1, 70)[:, None] * torch.tensor([1.0, -1.0, 0.3]) + 50 * inputs[1]
    parts = [part.float() * 12 for part in biases(70, kind)]
    leaves = [x.clone().requires_grad_() for x in (*inputs, *parts)]
    exact = [x.double().requires_grad_() for x in (*inputs, *parts)]

    def run(q, k, v, *w):
        bias = BiasFactors(*w) if len(w) == 2 else w[0]
        return aft_local(q, k, v, bias, window, causal=causal) if window else aft_full(q, k, v, bias, causal=causal)

    def definition(q, k, v, *w):
        bias = w[0] @ w[1].T if len(w) == 2 else w[0]
        more = (window,) if window else ()
        return (reference.aft_local if window else reference.aft_full)(q, k, v, bias, *more, causal=causal)

    found, expected = run(*leaves), definition(*exact)
    assert (found - expected).norm() <= 2e-4 * expected.norm()  # float32's own u v^T of 200 nats
    up = torch.randn(expected.shape, generator=torch.Generator().manual_seed(5)).double()
    ours, true = torch.autograd.grad(found, leaves, up.float()), torch.autograd.grad(expected, exact, up)
    scale = max(gradient.norm() for gradient in true)
    for gradient, right in zip(ours, true, strict=True):
        assert (gradient.double() - right).norm() <= 2e-3 * scale
    inputs[1][0, 0] = float("nan")
    assert run(*inputs, *parts)[0, :, 0].isnan().all()


@pytest.mark.parametrize("form", ["matmul", "convolution"])
def test_conv_is_exact_where_peaks_are_beyond_float64(form):
    key, value = 900 * draw(2, 3, 6, 7, seed=0), draw(2, 3, 2, 6, 7, seed=1)
    bias = 700 * draw(3, 3, 5, seed=2)
    ours, true = ([x.clone().requires_grad_() for x in (key, value, bias)] for _ in range(2))
    found, expected = aft_conv(None, *ours, implementation=form), reference.aft_conv(None, *true)
    torch.testing.assert_close(found, expected)
    up = draw(*expected.shape, seed=3)
    torch.testing.assert_close(torch.autograd.grad(found, ours, up), torch.autograd.grad(expected, true, up))


def test_gradcheck():
    inputs = [draw(1, 5, 2, seed=i).requires_grad_() for i in range(3)]
    for causal in (False, True):
        for kind in ("free", "factorized"):
            bias = [part.requires_grad_() for part in biases(5, kind)]
            for form in ("rows", "band"):
                assert torch.autograd.gradcheck(
                    lambda q, k, v, *w, form=form, causal=causal: by_form(form)(q, k, v, w, 2, causal=causal),
                    (*inputs, *bias),
                )
        assert torch.autograd.gradcheck(lambda q, k, v, causal=causal: aft_simple(q, k, v, causal=causal), inputs)


def test_autocast_does_not_narrow_the_sums():
    query, key, value = (draw(2, 30, 4, seed=i, dtype=torch.float32) for i in range(3))
    bias = draw(30, 30, seed=4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = aft_full(query, key, value, bias)
    assert torch.equal(found, aft_full(query, key, value, bias))


COMPILED = """
import torch
from aft_lens.ops import aft_conv, aft_full, aft_local
for run, shapes in (
    (lambda *x: aft_full(*x, causal=True), [(2, 40, 4)] * 3 + [(40, 40)]),
    (lambda *x: aft_local(*x, 4), [(2, 40, 4)] * 3 + [(40, 40)]),
    (aft_conv, [(2, 3, 4, 5, 6), (2, 3, 5, 6), (2, 3, 4, 5, 6), (3, 3, 3)]),
):
    x = [torch.randn(shape, requires_grad=True) for shape in shapes]
    found = torch.compile(run, fullgraph=True, backend="aot_eager")(*x)
    torch.testing.assert_close(found, run(*x))
    ours, true = (torch.autograd.grad(y.sum(), x) for y in (found, run(*x)))
    torch.testing.assert_close(ours, true)
"""


def test_compiles_without_a_graph_break():
    """In a process of its own, where no runtime checker wraps the functions."""
    subprocess.run([sys.executable, "-c", COMPILED], check=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"key": torch.zeros(2, 4, 2)}, r"key and value must have one shape .*got \(2, 4, 2\) and \(2, 4, 3\)"),
        ({"query": torch.zeros(2, 1, 3)}, r"query must have value's shape \(2, 4, 3\), got \(2, 1, 3\)"),
        ({"key_mask": torch.ones(2, 5, dtype=torch.bool)}, r"key_mask must be boolean with shape \(2, 4\)"),
        (dict.fromkeys(("query", "key", "value"), torch.zeros(2, 0, 3)), "at least one position"),
    ],
)
def test_an_argument_of_the_wrong_shape_is_named(arguments, message):
    """Called as a user would, without the runtime checker that these tests run under."""
    inputs = {name: torch.zeros(2, 4, 3) for name in ("query", "key", "value")}
    with pytest.raises(ValueError, match=message):
        check_tokens(**(inputs | arguments))


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (torch.zeros(3, 4), "position_bias must be 4 x 4"),
        (BiasFactors(torch.zeros(4, 2), torch.zeros(5, 2)), "two factors of 4 x rank"),
    ],
)
def test_a_bias_of_the_wrong_shape_is_refused(bias, message):
    x = torch.zeros(1, 4, 1)
    with pytest.raises(ValueError, match=message):
        aft_full(x, x, x, bias)
    with pytest.raises(ValueError, match="window_size must be 0 or more"):
        aft_local(x, x, x, torch.zeros(4, 4), -1)
