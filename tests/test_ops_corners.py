"""The operators where few look: forward-mode and `torch.func`, tracing, meta tensors, empty batches, dtypes."""

import json
import subprocess
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from aft_lens.layers.mixer import check_heads, check_input
from aft_lens.ops import (
    BiasFactors,
    aft_conv,
    aft_full,
    aft_indexed,
    aft_local,
    aft_local_step,
    aft_simple,
    expand_bias,
    local_state,
    reference,
)
from aft_lens.ops.bias import check_outside, source_index
from aft_lens.ops.check import check_biases, check_floating, check_grid, check_tokens
from aft_lens.ops.inspection import local_by_products

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
"""PyTorch's own forward-mode rules still use it."""
OFFSET = torch.tensor([[[0, 1]], [[-1, 0]]])
TWO = torch.tensor([[[0, 1], [1, 1]], [[-1, 0], [0, 0]]])
TOKENS, GRID = ((2, 5, 3),) * 3, ((2, 2, 2, 3, 4), (2, 2, 3, 4), (2, 2, 2, 3, 4))
CASES = {
    "full": (aft_full, reference.aft_full, (*TOKENS, (5, 5))),
    "full causal": (
        lambda *x: aft_full(*x, causal=True), lambda *x: reference.aft_full(*x, causal=True), (*TOKENS, (5, 5)),
    ),
    "factors": (
        lambda q, k, v, *w: aft_full(q, k, v, BiasFactors(*w)),
        lambda q, k, v, *w: reference.aft_full(q, k, v, w[0] @ w[1].T), (*TOKENS, (5, 2), (5, 2)),
    ),
    "local": (
        lambda *x: aft_local(*x, 2, causal=True), lambda *x: reference.aft_local(*x, 2, causal=True), (*TOKENS, (5, 5)),
    ),
    "simple": (aft_simple, reference.aft_simple, TOKENS),
    "simple causal": (
        lambda *x: aft_simple(*x, causal=True), lambda *x: reference.aft_simple(*x, causal=True), TOKENS,
    ),
    "conv": (aft_conv, reference.aft_conv, (*GRID, (2, 3, 3))),
    "conv causal": (
        lambda *x: aft_conv(*x, causal=True), lambda *x: reference.aft_conv(*x, causal=True), (*GRID, (2, 3, 3)),
    ),
    "conv rowwise": (
        lambda *x: aft_conv(*x, implementation="rowwise", outside="none"),
        lambda *x: reference.aft_conv(*x, outside="none"), (*GRID, (2, 3, 3)),
    ),
    "indexed": (
        lambda *x: aft_indexed(*x, OFFSET.to(x[0].device)), lambda *x: reference.aft_indexed(*x, OFFSET),
        (*GRID, (2, 1)),
    ),
    "two indexed": (
        lambda *x: aft_indexed(*x, TWO.to(x[0].device)), lambda *x: reference.aft_indexed(*x, TWO), (*GRID, (2, 2)),
    ),
}  # fmt: skip
"""Operator, definition, and shapes of what is differentiated."""


def drawn(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("name", CASES)
def test_forward_mode_and_transforms_are_right(name):
    run, definition, shapes = CASES[name]
    inputs, tangents = tuple(drawn(shapes)), tuple(drawn(shapes, 1))
    _, right = torch.func.jvp(definition, inputs, tangents)
    assert right.norm() > 0.1
    torch.testing.assert_close(torch.func.jvp(run, inputs, tangents)[1], right)
    with forward_ad.dual_level():
        found = run(*map(forward_ad.make_dual, inputs, tangents))
        torch.testing.assert_close(forward_ad.unpack_dual(found).tangent, right)
    many = [torch.stack([x, 2 * x]) for x in inputs]
    torch.testing.assert_close(torch.func.vmap(run)(*many), torch.stack([run(*(x[i] for x in many)) for i in (0, 1)]))
    value = inputs[2]

    def loss(form):
        return lambda v: form(*inputs[:2], v, *inputs[3:]).square().sum()

    torch.testing.assert_close(torch.func.grad(loss(run))(value), torch.func.grad(loss(definition))(value))
    torch.testing.assert_close(torch.func.hessian(loss(run))(value), torch.func.hessian(loss(definition))(value))


def test_a_second_derivative_backwards_is_refused_and_not_wrong():
    query, key, value, bias = (x.requires_grad_() for x in drawn(CASES["full"][2]))
    (gradient,) = torch.autograd.grad(aft_full(query, key, value, bias).square().sum(), key, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


def test_a_form_that_is_named_is_refused_where_no_transform_goes_through():
    inputs = tuple(drawn(CASES["conv"][2]))
    assert said(torch.func.jvp, lambda *x: aft_conv(*x, implementation="matmul"), inputs, inputs) == (
        "implementation='matmul' has no forward-mode derivative and no torch.func transform; "
        'use "auto", which takes the definition there (`aft_lens.ops.reference`, T x T weights in float64)'
    )


@pytest.mark.parametrize("name", CASES)
def test_meta_and_fake_tensors_and_empty_batches(name):
    run, _, shapes = CASES[name]
    if name != "conv rowwise":  # a stack of images, of which there must be one
        empty = [torch.zeros(0, *s[1:], requires_grad=True) for s in shapes[:3]] + [torch.zeros(s) for s in shapes[3:]]
        found = run(*empty)
        assert found.shape == empty[2].shape
        assert torch.autograd.grad(found.sum(), empty[1])[0].shape == empty[1].shape
    assert run(*(torch.empty(shape, device="meta") for shape in shapes)).shape == shapes[2]
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert run(*(torch.empty(shape) for shape in shapes)).shape == shapes[2]


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize("name", ["query", "key", "value"])
def test_dtypes_that_are_no_floats_are_refused_by_name(dtype, name):
    """Called without the runtime checker that these tests run under."""
    tokens = {part: torch.zeros(1, 2, 3) for part in ("query", "key", "value")}
    grid = {"query": torch.zeros(1, 2, 3, 4), "key": torch.zeros(1, 2, 4), "value": torch.zeros(1, 2, 3, 4)}
    for check, inputs in ((check_tokens, tokens), (check_grid, grid)):
        with pytest.raises(ValueError, match=f"{name} must be float16, .*; use {name}.float"):
            check(**(inputs | {name: inputs[name].to(dtype)}))


def test_no_heads_and_no_channels_are_an_error():
    for shape in ((1, 0, 3, 4), (1, 2, 0, 4)):
        with pytest.raises(ValueError, match="at least one head, channel and position"):
            check_grid(None, torch.zeros(shape[0], shape[1], shape[3]), torch.zeros(shape))
    with pytest.raises(ValueError, match="one channel"):
        check_tokens(None, torch.zeros(1, 3, 0), torch.zeros(1, 3, 0))
    for heads in (0, -2, 5):
        with pytest.raises(ValueError, match="embed_dim must be a multiple of num_heads"):
            check_heads(8, heads)


@pytest.fixture
def unchecked(monkeypatch):
    """Without the runtime checker that these tests run under, as users call."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def said(call, *arguments, **options):
    """What is said of a call that is refused."""
    with pytest.raises(ValueError, match=r".") as caught:
        call(*arguments, **options)
    return str(caught.value)


@pytest.mark.usefixtures("unchecked")
def test_a_wrong_shape_is_said_with_what_it_must_be():
    of, long = torch.zeros, torch.int64
    assert said(check_floating, key=of(1), value=of(1, dtype=long)) == (
        "value must be float16, bfloat16, float32 or float64, got int64; use value.float()"
    )
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        check_floating(key=of(1, dtype=dtype), query=None)
    one = "key and value must have one shape (b t d), got "
    assert said(check_tokens, None, of(2, 4, 2), of(2, 4, 3)) == one + "(2, 4, 2) and (2, 4, 3)"
    assert said(check_tokens, None, of(4, 3), of(4, 3)) == one + "(4, 3) and (4, 3)"
    x = of(2, 4, 3)
    assert said(check_tokens, of(2, 1, 3), x, x) == "query must have value's shape (2, 4, 3), got (2, 1, 3)"
    least = "key must have at least one position and one channel, got shape "
    assert said(check_tokens, None, of(2, 0, 3), of(2, 0, 3)) == least + "(2, 0, 3)"
    assert said(check_tokens, None, of(2, 4, 0), of(2, 4, 0)) == least + "(2, 4, 0)"
    check_tokens(x[:0], x[:0], x[:0], of(0, 4, dtype=torch.bool))
    mask = "key_mask must be boolean with shape (2, 4), True where a source may be read; got "
    assert said(check_tokens, x, x, x, of(2, 4)) == mask + "torch.float32 with shape (2, 4)"
    assert said(check_tokens, x, x, x, of(4, 2, dtype=torch.bool)) == mask + "torch.bool with shape (4, 2)"
    both = "key must be (b h *grid) and value (b h c *grid) over the same batch, heads and grid, got "
    for key, value in (
        ((1, 2, 4, 5), (1, 2, 3, 5, 4)), ((1, 2, 4), (1, 3, 3, 4)), ((1, 2, 4), (2, 2, 3, 4)), ((1, 2), (1, 2, 3)),
        ((1, 2, 4), (1, 2, 4)), ((1, 2, 4, 5), (1, 2, 4, 5)),
    ):  # fmt: skip
        assert said(check_grid, None, of(key), of(value)) == f"{both}{key} and {value}"
    value = of(1, 2, 3, 4)
    assert said(check_grid, of(1, 2, 3, 5), of(1, 2, 4), value) == (
        "query must have value's shape (1, 2, 3, 4), got (1, 2, 3, 5)"
    )
    for value in ((1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)):
        assert said(check_grid, None, of(value[:2] + value[3:]), of(value)) == (
            f"value must have at least one head, channel and position (b h c *grid), got shape {value}"
        )
    check_grid(None, of(0, 2, 4), of(0, 2, 3, 4))
    value = of(1, 2, 3, 4)
    for name, biases in (("query_bias", (of(5), None)), ("value_bias", (None, of(5)))):
        words = f"{name} must have 6 entries, one a channel, got shape (5,)"
        assert said(check_biases, value, value, *biases) == words
        biases = [bias if bias is None else of(6, dtype=long) for bias in biases]
        assert said(check_biases, value, value, *biases).startswith(f"{name} must be float16")
    assert said(check_biases, None, value, of(6), None) == (
        "query_bias needs a query, got query=None; leave the bias out too"
    )
    check_biases(None, value, None, of(6))


@pytest.mark.usefixtures("unchecked")
def test_what_an_operator_cannot_do_is_said_with_what_to_do():
    query, key, value, bias = drawn(CASES["conv"][2])
    few = torch.zeros(2, 1)
    names = "('auto', 'triton', 'matmul', 'convolution', 'banded', 'rowwise')"
    assert said(aft_conv, query, key, value, bias, implementation="magic") == (
        f"implementation must be one of {names}, got 'magic'"
    )
    assert said(aft_conv, query, key, value, torch.zeros(4, 3, 3)) == "position_bias must have 2 heads like key, got 4"
    assert said(aft_conv, query, key, value, bias, implementation="convolution", causal=True) == (
        'implementation="convolution" has no causal form; use "auto" or "rowwise"'
    )
    assert said(aft_conv, query, key, value, bias, implementation="banded") == (
        'implementation="banded" is for 1-D grids, got grid (3, 4); use "auto"'
    )
    names = "('auto', 'triton', 'gather', 'matmul', 'rowwise')"
    assert said(aft_indexed, query, key, value, few, OFFSET, implementation="magic") == (
        f"implementation must be one of {names}, got 'magic'"
    )
    start = "offset and position_bias must be (h k n) and (h k) with h = 2, got "
    assert said(aft_indexed, query, key, value, few, TWO) == start + "(2, 2, 2) and (2, 1)"
    assert said(aft_indexed, query, key, value, few[:1], OFFSET[:1]) == start + "(1, 1, 2) and (1, 1)"
    assert said(source_index, OFFSET, (3,)) == "offset must have 1 coordinates for grid (3,), got 2"
    start = "position_bias must have one window dimension for each of the grid's 1 or 2 dimensions, got window "
    for grid in ((4,), (4, 4, 4)):
        assert said(expand_bias, torch.zeros(1, 3, 3), grid) == f"{start}(3, 3) for grid {grid}"
    assert said(expand_bias, torch.zeros(1, 3, 3, 3), (4, 4, 4)) == f"{start}(3, 3, 3) for grid (4, 4, 4)"
    assert said(expand_bias, torch.zeros(1, 3, 2), (4, 4)) == "position_bias must have odd window sides, got (3, 2)"
    assert said(check_outside, "all") == "outside must be one of ('global', 'none'), got 'all'"
    query, key, value, bias = drawn(CASES["full"][2])
    assert said(aft_full, query, key, value, bias[:4]) == "position_bias must be 5 x 5, got (4, 5)"
    for u, v in ((5, 4), (4, 4)):
        assert said(aft_full, query, key, value, BiasFactors(torch.zeros(u, 2), torch.zeros(v, 2))) == (
            f"position_bias must have two factors of 5 x rank, got ({u}, 2) and ({v}, 2)"
        )
    assert said(aft_local, query, key, value, bias, -1) == "window_size must be 0 or more, got -1"
    state, one = local_state(2, 3), [x[:, 0] for x in (query, key, value)]
    assert said(aft_local_step, *one, bias, 0, state) == (
        "window_size must be 1 or more, got 0; without a window use aft_simple_step"
    )
    late = state._replace(position=5)
    for w in (bias, BiasFactors(torch.zeros(5, 2), torch.zeros(5, 2))):
        assert said(aft_local_step, *one, w, 2, late) == "position_bias has 5 positions, and the state is at position 5"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the kernels take them")
def test_kernels_are_refused_where_there_is_no_gpu():
    for run, inputs in ((aft_conv, drawn(CASES["conv"][2])), (aft_indexed, [*drawn(CASES["indexed"][2]), OFFSET])):
        assert said(run, *inputs, implementation="triton") == (
            'implementation="triton" does not fit: the kernels run on CUDA, got device cpu; use "auto"'
        )


@pytest.mark.usefixtures("unchecked")
def test_a_bias_that_is_no_float_is_named():
    whole = torch.int64
    tokens, grid = drawn(CASES["full"][2]), drawn(CASES["conv"][2])
    factors = BiasFactors(torch.zeros(5, 2), torch.zeros(5, 2))
    for run, inputs in (
        (aft_full, (*tokens[:3], torch.zeros(5, 5, dtype=whole))),
        (aft_full, (*tokens[:3], factors._replace(target=torch.zeros(5, 2, dtype=whole)))),
        (aft_full, (*tokens[:3], factors._replace(source=torch.zeros(5, 2, dtype=whole)))),
        (aft_conv, (*grid[:3], torch.zeros(2, 3, 3, dtype=whole))),
        (aft_indexed, (*grid[:3], torch.zeros(2, 1, dtype=whole), OFFSET)),
    ):
        assert said(run, *inputs).startswith("position_bias must be float16")


@pytest.mark.parametrize("name", CASES)
def test_mixed_dtypes_are_summed_in_the_widest_and_come_as_the_value(name):
    run, definition, shapes = CASES[name]
    inputs = [x.float() for x in drawn(shapes)]
    inputs[1], inputs[2] = 30 * inputs[1].double(), inputs[2].bfloat16()
    found = run(*inputs)
    assert found.dtype == torch.bfloat16
    right = definition(*inputs)
    assert (found.double() - right).norm() <= 4e-3 * right.norm()  # rounded once


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_one_input_narrower_or_wider_than_the_others_loses_nothing(name, dtype):
    run, definition, shapes = CASES[name]
    for part in range(len(shapes)):
        inputs = [x.float() for x in drawn(shapes)]
        inputs[part] = inputs[part].to(dtype)
        if dtype == torch.float64 and part != 2 and name != "factors":
            inputs[part] = inputs[part] + 2**20  # float32 has steps of 0.1 there
        found, right = run(*inputs), definition(*(x.double() for x in inputs))
        assert found.dtype == inputs[2].dtype
        error = (found.double() - right).norm() / right.norm()
        assert error <= {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 4e-3}[found.dtype], part


@pytest.mark.parametrize("name", CASES)
def test_transforms_return_the_values_dtype(name):
    run, _, shapes = CASES[name]
    inputs = tuple(x.float() for x in drawn(shapes))
    out, tangent = torch.func.jvp(run, inputs, inputs)
    assert out.dtype == tangent.dtype == torch.float32
    torch.testing.assert_close(out, run(*inputs))


@pytest.mark.parametrize("name", ["conv", "indexed", "two indexed"])
def test_biases_of_the_projections_are_added_under_transforms_too(name):
    run, _, shapes = CASES[name]
    query, key, value, w = drawn(shapes)
    a, b = drawn([(4,), (4,)], 2)
    operator, rest = (aft_conv, ()) if name == "conv" else (aft_indexed, (OFFSET if name == "indexed" else TWO,))

    def biased(key):
        return operator(query, key, value, w, *rest, query_bias=a, value_bias=b)

    shape = (2, 2, 1, 1)
    found, _ = torch.func.jvp(biased, (key,), (key,))
    torch.testing.assert_close(found, run(query + a.view(shape), key, value + b.view(shape), w))
    torch.testing.assert_close(found, biased(key))


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_of_one_input_alone_is_right(name):
    run, definition, shapes = CASES[name]
    for part in range(len(shapes)):
        ours, true = drawn(shapes), drawn(shapes)
        grads = []
        for form, inputs in ((run, ours), (definition, true)):
            inputs[part].requires_grad_()
            grads.append(torch.autograd.grad(form(*inputs).square().sum(), inputs[part])[0])
        torch.testing.assert_close(*grads)
        plain = drawn(shapes)
        torch.testing.assert_close(run(*plain), run(*ours).detach())
        assert all(torch.equal(x, before) for x, before in zip(plain, drawn(shapes))), "inputs are not written to"


@pytest.mark.parametrize("level", [-100.0, -20.0, -4.0, 40.0, 100.0])
def test_two_kept_offsets_are_exact_for_any_biases(level):
    query, key, value = (x.float() for x in drawn(GRID))
    for bias in ([[level, 0.0], [0.0, level]], [[level, -level], [level, level]]):
        w = torch.tensor(bias)
        right = reference.aft_indexed(query, key, value, w, TWO)
        assert (aft_indexed(query, key, value, w, TWO) - right).norm() <= 2e-6 * right.norm()


def test_what_is_left_out_reads_every_source_without_a_window_and_without_a_gate():
    query, key, value, bias = drawn(CASES["full"][2])
    for run, definition, w in (
        (aft_simple, reference.aft_simple, ()), (aft_full, reference.aft_full, (bias,)),
        (aft_local, reference.aft_local, (bias, 2)), (aft_local, reference.aft_local, (bias, 0)),
        (local_by_products, reference.aft_local, (bias, 2)),
    ):  # fmt: skip
        for gate in (query, None):
            torch.testing.assert_close(run(gate, key, value, *w), definition(gate, key, value, *w))
    query, key, value, bias = drawn(CASES["conv"][2])
    for gate in (query, None):
        torch.testing.assert_close(aft_conv(gate, key, value, bias), reference.aft_conv(gate, key, value, bias))
        for offset in (OFFSET, TWO):
            w = bias[:, 0, : offset.shape[1]]
            right = reference.aft_indexed(gate, key, value, w, offset)
            torch.testing.assert_close(aft_indexed(gate, key, value, w, offset), right)


@pytest.mark.parametrize("name", CASES)
def test_the_form_that_is_traced_is_right(name, monkeypatch):
    run, definition, shapes = CASES[name]
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    inputs = drawn(shapes)
    torch.testing.assert_close(run(*inputs), definition(*inputs))
    if name == "simple":
        inputs[1][:, :, 0] = -torch.inf
        inputs[1][0, 2:] = -torch.inf
        inputs[2][0, 2:] = 1e9
        torch.testing.assert_close(run(*inputs), definition(*inputs))
        assert (run(*inputs)[..., 0] == 0).all()
        narrow = run(*(x.float() for x in inputs[:2]), inputs[2].bfloat16())
        assert narrow.dtype == torch.bfloat16
        torch.testing.assert_close(narrow.double(), definition(*inputs[:2], inputs[2].bfloat16()), rtol=8e-3, atol=8e-3)


@pytest.mark.usefixtures("unchecked")
def test_every_operator_checks_query_key_value_mask_and_biases():
    query, key, value, bias = drawn(CASES["conv"][2])
    for run, w in ((aft_conv, (bias,)), (aft_indexed, (torch.zeros(2, 1), OFFSET))):
        assert said(run, query[..., :1], key, value, *w).startswith("query must have value's shape (2, 2, 2, 3, 4)")
        assert said(run, query, key[..., :1], value, *w).startswith("key must be (b h *grid)")
        assert said(run, query, key, value, *w, query_bias=torch.zeros(3)).startswith("query_bias must have 4 entries")
        assert said(run, query, key, value, *w, value_bias=torch.zeros(3)).startswith("value_bias must have 4 entries")
        assert said(run, None, key, value, *w, query_bias=torch.zeros(4)).startswith("query_bias needs a query")
    query, key, value, bias = drawn(CASES["full"][2])
    odd = torch.ones(2, 4, dtype=torch.bool)
    for run, w in ((aft_simple, ()), (aft_full, (bias,)), (aft_local, (bias, 2)), (aft_local, (bias, 0))):
        assert said(run, query[:1], key, value, *w).startswith("query must have value's shape (2, 5, 3)")
        assert said(run, query, key[:1], value, *w).startswith("key and value must have one shape")
        assert said(run, query, key, value, *w, key_mask=odd).startswith("key_mask must be boolean with shape (2, 5)")
    for window in (0, 2, 9):
        assert said(aft_local, query, key, value, bias[:4], window) == "position_bias must be 5 x 5, got (4, 5)"


@pytest.mark.parametrize("causal", [False, True])
def test_masked_sources_are_hidden_from_every_operator_and_under_transforms(causal):
    query, key, value, bias = drawn(CASES["full"][2])
    mask = torch.tensor([[True, False, True, True, False], [True, True, False, False, True]])
    options = {"causal": causal, "key_mask": mask}
    for run, definition, w in (
        (aft_simple, reference.aft_simple, ()),
        (aft_full, reference.aft_full, (bias,)),
        *((aft_local, reference.aft_local, (bias, window)) for window in (1, 2, 4, 5, 9)),
        (aft_local, lambda *x, **o: reference.aft_simple(*x[:3], **o), (bias, 0)),
    ):
        right = definition(query, key, value, *w, **options)
        torch.testing.assert_close(run(query, key, value, *w, **options), right)
        moved = key.masked_fill(~mask.unsqueeze(-1), 1e4), value.masked_fill(~mask.unsqueeze(-1), 1e4)
        torch.testing.assert_close(run(query, *moved, *w, **options), right)
        out, _ = torch.func.jvp(lambda v, run=run, w=w: run(query, key, v, *w, **options), (value,), (value,))
        torch.testing.assert_close(out, right)
    nothing = torch.tensor([[True] * 5, [False] * 5])
    for run, w in ((aft_simple, ()), (aft_full, (bias,)), (aft_local, (bias, 2)), (aft_local, (bias, 0))):
        assert said(run, query, key, value, *w, causal=causal, key_mask=nothing) == (
            "key_mask leaves target 0 of batch entry 1 no source to read"
        )
    first = torch.tensor([[True] * 5, [False, False, True, True, True]])
    if causal:
        assert said(aft_full, query, key, value, bias, causal=True, key_mask=first).startswith(
            "key_mask leaves target 0 of batch entry 1"
        )
    else:
        for run, w in ((aft_simple, ()), (aft_full, (bias,)), (aft_local, (bias, 2)), (aft_local, (bias, 0))):
            assert run(query, key, value, *w, key_mask=first).isfinite().all()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 4, 8, dtype=torch.int64), "x must be float16"),
        (torch.zeros(1, 4, 8).double(), r"x must be float32 like the layer's weights, got torch.float64; use x.to"),
        (torch.zeros(1, 4, 7), "x must have 8 channels"),
        (torch.zeros(4, 8), "x must be tokens"),
        (torch.zeros(1, 0, 8), "x must be tokens"),
    ],
)
def test_a_mixer_says_what_its_input_must_be(x, message):
    with pytest.raises(ValueError, match=message):
        check_input(x, torch.nn.Linear(8, 8))


def test_every_mixer_asks_the_same():
    """Each file of a mixer whose modules have a forward checks its input, and its heads if it has any."""
    for path in (Path(check_input.__code__.co_filename).parent / "mixers").glob("[!_]*.py"):
        text = path.read_text()
        assert text.count("check_input(x, self.proj)") == 1, path.name
        assert ("num_heads" in text) <= ("check_heads(" in text or path.stem == "aft_full"), path.name


TRACED = """
import json, sys, torch
from torch._dynamo.testing import CompileCounter
from aft_lens.ops import aft_conv, aft_full, aft_indexed, aft_local, aft_simple

def grid(*sides, b=2):
    return [torch.randn(b, 2, 3, *sides), torch.randn(b, 2, *sides), torch.randn(b, 2, 3, *sides)]

def tokens(t, b=2):
    return [torch.randn(b, t, 4) for _ in range(3)]

one, two = torch.tensor([[[0, 1]], [[-1, 0]]]), torch.tensor([[[0, 1], [1, 1]], [[-1, 0], [0, 0]]])
wide, few, more = torch.randn(2, 3, 3), torch.randn(2, 1), torch.randn(2, 2)
cases = {
    "conv": (aft_conv, [(*grid(5, 6), wide), (*grid(7, 9, b=3), wide)]),
    "conv causal": (lambda *x: aft_conv(*x, causal=True), [(*grid(5, 6), wide), (*grid(7, 9), wide)]),
    "conv 1-D": (aft_conv, [(*grid(40), wide[:, 0]), (*grid(130), wide[:, 0])]),
    "simple": (aft_simple, [tokens(5), tokens(8)]),
    "simple causal": (lambda *x: aft_simple(*x, causal=True), [tokens(5), tokens(8)]),
    "full": (aft_full, [(*tokens(5), torch.randn(5, 5)), (*tokens(8), torch.randn(8, 8))]),
    "local": (lambda *x: aft_local(*x, 4), [(*tokens(5), torch.randn(5, 5)), (*tokens(400), torch.randn(400, 400))]),
    "indexed": (lambda *x: aft_indexed(*x, one), [(*grid(5, 6), few), (*grid(7, 9), few)]),
    "two indexed": (lambda *x: aft_indexed(*x, two), [(*grid(5, 6), more), (*grid(7, 9), 9 * more)]),
}
found = {}
for name, (run, inputs) in cases.items():
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for x in inputs:
        x = [tensor.requires_grad_() for tensor in x]
        ours, true = compiled(*x), run(*x)
        grads = [torch.autograd.grad(y.square().sum(), x) for y in (ours, true)]
        gap = max(float((a - b).detach().norm() / (1 + b.detach().norm())) for a, b in zip(*grads))
        found.setdefault(name, []).append([float((ours - true).detach().abs().max()), gap])
torch.compiler.reset()
q, k, v, w = (*tokens(5), torch.randn(5, 5))
run = lambda k: torch.func.jvp(lambda k: aft_full(q, k, v, w), (k,), (v,))[1]
found["jvp"] = [[float((torch.compile(run, backend="eager")(k) - run(k)).abs().max()), 0.0]]
found["size"] = [[0.0, 0.0]] if float(run(k).norm()) > 0.01 else [[1.0, 1.0]]
for wrong, words in ((torch.zeros(1, 2, 3).long(), "query must be float16"), ):
    try:
        aft_simple(wrong, wrong, wrong)
    except ValueError as error:
        found["refused"] = [[0.0 if words in str(error) else 1.0, 0.0]]
json.dump(found, sys.stdout)
"""


def test_every_operator_is_one_graph_at_a_second_size():
    """In a process of its own, where no runtime checker wraps the functions."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", TRACED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert len(found) == 12
    for name, errors in found.items():
        assert all(max(pair) <= 2e-5 for pair in errors), name
