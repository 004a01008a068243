"""The indexed kernels, through the interpreter and at real shapes on a GPU, against the float64 reference."""

import math

import pytest
import torch
from apart import run_apart

pytest.importorskip("triton", reason="Triton is not installed")

FAR = [(0, 0), (-9, 3), (1, -1), (2, 2), (0, 1), (-1, 0), (1, 1), (0, -2)]
"""The second is off every grid here."""
CASES = [
    # grid, keep, scale of the bias, added to one key, unkept slots, query
    ((5, 7), 1, 1.0, 0.0, False, True),
    ((9,), 3, 1.0, 0.0, True, True),
    ((4, 4), 0, 1.0, 0.0, False, True),
    ((5, 6), 3, 1.0, 0.0, True, False),
    ((4, 5), 1, -20.0, 30.0, False, True),
    ((4, 5), 2, 90.0, 120.0, False, True),
]


def relative_error(found, right):
    """||found - right|| / ||right||, or / 0.1 of a gradient that all but vanishes."""
    return float((found.double() - right).norm() / right.norm().clamp(min=0.1))


def inputs(grid, keep, scale, peak, spare, gated, *, b=3, h=2, c=3, device="cpu", dtype=torch.float32):
    """Query, key, value, bias and offsets; `peak` is added to the key that one target's first offset reads."""
    t = math.prod(grid)
    random = {"device": device, "dtype": dtype}
    query, value = (torch.randn(h, c, b, t, **random).permute(2, 0, 1, 3).requires_grad_() for _ in range(2))
    key = torch.randn(b, h, t, **random)
    key[:, :, t // 2] += peak
    w = torch.randn(h, keep, device=device) if scale > 0 else torch.ones(h, keep, device=device)
    w = w * scale
    if spare:
        w[-1, -1] = 0.0
    far = [FAR[(i + j) % len(FAR)] for i in range(h) for j in range(keep)]
    offset = torch.tensor(far, dtype=torch.long, device=device).view(h, keep, 2)
    return query if gated else None, key.requires_grad_(), value, w.requires_grad_(), offset[..., 2 - len(grid) :]


def check(grid, keep, scale, peak, spare, gated, limit=1e-5, **changes):
    """Compare the operator and its gradients with the reference; run where TRITON_INTERPRET=1 is set or on a GPU."""
    from aft_lens.ops.kernels.indexed.operator import indexed_forward  # noqa: PLC0415 - Triton reads its environment on import
    from aft_lens.ops.reference import aft_indexed  # noqa: PLC0415

    query, key, value, w, offset = inputs(grid, keep, scale, peak, spare, gated, **changes)
    b, h, c, t = value.shape
    mixed, stats = indexed_forward(query, key, value, w, offset, None, None, list(grid))
    assert torch.isfinite(stats).all()
    named = {"query": query, "key": key, "value": value, "w": w}
    double = {name: x.detach().double().requires_grad_() for name, x in named.items() if x is not None}
    q = None if query is None else double["query"].view(b, h, c, *grid)
    expected = aft_indexed(
        q, double["key"].view(b, h, *grid), double["value"].view(b, h, c, *grid), double["w"], offset
    ).view(b, h, c, t)
    assert relative_error(mixed, expected) < limit
    upstream = torch.randn_like(mixed)
    mixed.backward(upstream)
    expected.backward(upstream.double())
    for name, right in double.items():
        assert relative_error(named[name].grad, right.grad) < limit, name


def poison(put=setattr):
    """Fill memory that kernels ask for with NaN, so that what they leave unwritten shows."""
    empty, new_empty = torch.empty, torch.Tensor.new_empty

    def full(tensor):
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    put(torch, "empty", lambda *shape, **options: full(empty(*shape, **options)))
    put(torch.Tensor, "new_empty", lambda self, *shape, **options: full(new_empty(self, *shape, **options)))


def check_layer():
    """The layer's way through the kernels equals its plain way, forward and every gradient."""
    from test_kernels import check_both_ways  # noqa: PLC0415

    from aft_lens.layers.mixers.aft_conv import AFTConv  # noqa: PLC0415
    from aft_lens.layers.position_bias import Indexed  # noqa: PLC0415

    offset = torch.tensor([[[0, 1], [1, 1]], [[-1, 0], [0, 0]], [[2, -2], [0, 3]]])
    bias = Indexed(torch.randn(3, 2), offset, torch.tensor([[True, True], [True, False], [True, True]]))
    layer, x, grid = AFTConv(12, 3, bias), torch.randn(2, 20, 12), (4, 5)
    check_both_ways(layer, x, grid)


def check_dispatch():
    """implementation="triton" takes any layout and equals the other forms; what it cannot take is an error."""
    from aft_lens.ops import aft_indexed  # noqa: PLC0415

    query, value = torch.randn(2, 3, 2, 4, 5), torch.randn(2, 3, 2, 4, 5).transpose(3, 4).contiguous().transpose(3, 4)
    key, w, offset = torch.randn(2, 4, 5, 3).permute(0, 3, 1, 2), torch.randn(3, 1), torch.tensor([[[0, 1]]] * 3)
    fused = aft_indexed(query, key, value, w, offset, implementation="triton")
    torch.testing.assert_close(fused, aft_indexed(query, key, value, w, offset), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="float64"):
        aft_indexed(query, key, value.double(), w, offset, implementation="triton")


def check_operator():
    """Fake tensors, autograd and dispatch agree with what the operator does, and nothing breaks a traced graph."""
    from aft_lens.ops import aft_indexed  # noqa: PLC0415
    from aft_lens.ops.kernels.indexed.operator import indexed_forward  # noqa: PLC0415

    query, key, value, w, offset = inputs((3, 4), 2, 1.0, 0.0, False, True)
    torch.library.opcheck(indexed_forward, (query, key, value, w, offset, None, None, [3, 4]))
    grid = [x.detach().unflatten(-1, (3, 4)) for x in (query, key, value)]
    compiled = torch.compile(aft_indexed, fullgraph=True, backend="aot_eager")
    found = compiled(*grid, w.detach(), offset, implementation="triton")
    torch.testing.assert_close(found, aft_indexed(*grid, w.detach(), offset))


def check_lowest():
    """How negative a bias the fused form takes hangs on the values' rounding; either side of it is accurate."""
    from aft_lens.ops.kernels.indexed.operator import indexed_forward  # noqa: PLC0415
    from aft_lens.ops.reference import aft_indexed  # noqa: PLC0415

    for w, peak, dtype, limit, redone in (
        (-6.9, 8.0, torch.float16, 1e-3, False),
        (-6.9, 30.0, torch.float16, 1e-3, False),
        (-9.0, 20.0, torch.float16, 1e-3, True),
        (-6.9, 20.0, torch.float32, 5e-5, True),
    ):
        query, key, value, bias, offset = inputs((4, 5), 1, w, peak, False, True, dtype=dtype)
        mixed, stats = indexed_forward(query, key, value, bias, offset, None, None, [4, 5])
        assert (stats[0, -1] < 0.0).all() == redone
        doubles = (x.unflatten(-1, (4, 5)).double() for x in (query, key, value))
        right = aft_indexed(*doubles, bias.double(), offset).flatten(3)
        assert relative_error(mixed[:, 0, :, 10], right[:, 0, :, 10]) < limit  # the target that reads the peak
        if peak < 30.0:  # beyond, the gradient of the key is nothing but rounding
            check((4, 5), 1, w, peak, False, True, limit, dtype=dtype)


def check_long_rows():
    """A row spread over several warps."""
    check((20, 30), 2, 1.0, 0.0, False, True, b=2, h=1, c=1)


def test_triton_is_refused_without_a_gpu():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from aft_lens.ops import aft_indexed  # noqa: PLC0415

    with pytest.raises(ValueError, match="run on CUDA"):
        aft_indexed(
            None, torch.randn(1, 1, 9), torch.randn(1, 1, 1, 9), torch.randn(1, 1), torch.tensor([[[1]]]),
            implementation="triton",
        )  # fmt: skip


def check_compiled(c, keep):
    """The kernels compile for a Hopper GPU, without one too: the interpreter takes what the compiler refuses."""
    import triton  # noqa: PLC0415
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415

    for name, source in hopper_sources(c, keep).items():
        ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1}).asm["ptx"]
        assert name == "exact" or "ld.global.v2.b32" in ptx, f"{name} reads its rows in pieces of less than 8 bytes"


def hopper_sources(c, keep):
    """The three kernels as they are launched for bfloat16 on a 14 x 14 grid."""
    from aft_lens.ops.kernels.indexed.backward import backward_kernel  # noqa: PLC0415
    from aft_lens.ops.kernels.indexed.exact import exact_backward_kernel  # noqa: PLC0415
    from aft_lens.ops.kernels.indexed.forward import forward_kernel  # noqa: PLC0415

    tiles = {"CHUNKS": 4, "LANES": 64, "BLOCK_B": 2, "B_STEPS": 2, "UNIT": 4}
    shape = {"T": 196, "GRID_X": 14, "DIMS": 2, "KEEP": keep, "HAS_QUERY": True, "HAS_BIAS": True}
    slots, range_ = {"KEEP_BLOCK": 1 << (keep - 1).bit_length()}, {"LOW": -7.0, "FLOOR": math.exp(-7.0), "SAFE": 57.0}
    constants = {
        "forward": (forward_kernel, {**tiles, **shape, "C": c, "C_PER": c, "C_SPLITS": 1, **range_}),
        "backward": (backward_kernel, {**tiles, **shape, **slots, "C": c}),
        "exact": (exact_backward_kernel, {**shape, **slots, "C": c, "BLOCK_B": 16, "BLOCK": 16}),
    }
    return {name: hopper_source(kernel, known) for name, (kernel, known) in constants.items()}


def hopper_source(kernel, known):
    """A kernel with its constants, pointers and strides on 16 bytes but those along the batch."""
    from triton.compiler import ASTSource  # noqa: PLC0415

    wide = {"W": "*fp32", "STATS": "*fp32", "DW": "*fp32", "R": "*fp32", "DDEN": "*fp32", "SPARE": "*fp32"}
    signature, aligned = {}, {}
    for place, name in enumerate(kernel.arg_names):
        number = name in ("B", "C", "COLUMNS") or "_" in name
        signature[name] = "i32" if number else wide.get(name, "*i64" if name == "OFFSET" else "*bf16")
        if name in known:
            signature[name] = "constexpr"
        elif not number or name.endswith(("_h", "_c")):
            aligned[(place,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, known, aligned)


def check_on_a_gpu():
    """Real grids and heads in each dtype, long rows, and biases that take the exact form."""
    poison()
    limits = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 2e-5}
    for h, c in ((16, 24), (384, 1)):
        for keep in (0, 1, 3):
            for dtype, limit in limits.items():
                check((14, 14), keep, 1.0, 0.0, keep > 1, True, limit, b=5, h=h, c=c, device="cuda", dtype=dtype)
    for grid, scale, peak in (((28, 28), 1.0, 0.0), ((56, 56), 1.0, 0.0), ((14, 14), -9.0, 30.0)):
        check(grid, 2, scale, peak, False, True, 1e-4, b=2, h=2, c=3, device="cuda")


def test_indexed_kernels_equal_the_reference():
    checks = "check_layer(); check_dispatch(); check_operator(); poison(); [check(*case) for case in CASES]"
    run_apart(__name__, f"{checks}; check_lowest(); check_long_rows()", interpreted=True)


def test_indexed_kernels_compile_for_hopper():
    run_apart(__name__, "check_compiled(1, 1); check_compiled(24, 3)", interpreted=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_indexed_kernels_on_a_gpu():
    run_apart(__name__, "check_on_a_gpu()", interpreted=False)
