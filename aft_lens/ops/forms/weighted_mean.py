"""The weighted mean of every operator as one differentiable op that a compiler sees whole.

`weighted_mean` sums in the input's dtype (float32 or float64), looks for denominators so small that terms may
have been lost (key and bias peaking at sources far apart), and redoes exactly those targets in float64, which
holds any keys and biases that peak within 400 nats of each other (causal: and no key more than 250 nats above
those before it). Other targets keep their bits. The look is one comparison; on a GPU it waits for the result once
a call, except while a CUDA graph is captured, where float64 is used throughout.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from aft_lens.ops.forms import band, blocks, depthwise
from aft_lens.ops.forms.columns import SAFE_DENOMINATOR, sums_buffer
from aft_lens.ops.forms.spec import Spec

_FORMS = {"rows": blocks, "matmul": blocks, "convolution": depthwise, "band": band, "banded": band}


def _sums(key: Tensor, value: Tensor, bias: Sequence[Tensor], spec: Spec) -> tuple[Tensor, Tensor]:
    return _FORMS[spec.form].sums(key, value, list(bias), spec)


def _causal_sums(key: Tensor, value: Tensor, bias: Sequence[Tensor], spec: Spec) -> tuple[Tensor, Tensor]:
    """`_sums` where a NaN or infinite source reaches the targets from it on, and no earlier one as 0 times NaN."""
    no_key, no_value = ~(key < float("inf")), ~value.isfinite()
    num, den = _sums(key.masked_fill(no_key, float("-inf")), value.masked_fill(no_value, 0.0), bias, spec)
    reached = no_key.cumsum(-1) > 0
    num = num.masked_fill((no_value.cumsum(-1) > 0) | reached.unsqueeze(2), float("nan"))
    return num, den.masked_fill(reached, float("nan"))


def _double(*tensors: Tensor) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


def _exact(
    key: Tensor, value: Tensor, bias: Sequence[Tensor], spec: Spec, lost: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The sums in float64; raises where not even those reach."""
    num, den = (_causal_sums if spec.causal else _sums)(key.double(), value.double(), _double(*bias), spec)
    gone = den <= SAFE_DENOMINATOR[torch.float64]
    if lost is None:
        return num, den
    if bool((gone & lost).any()):
        raise FloatingPointError(
            "key and position_bias must not peak more than 400 nats apart at different sources (causal: no key more "
            "than 250 nats above those before it), got keys in "
            f"[{key[key.isfinite()].min():.3g}, {key.max():.3g}]; scale the key projection down, or use "
            'aft_conv(..., implementation="rowwise")'
        )
    return num, den


@torch.library.custom_op("aft_lens::weighted_mean", mutates_args=())
def _forward(
    key: Tensor, value: Tensor, bias: Sequence[Tensor], form: str, grid: Sequence[int], window: int, causal: bool,
    outside: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mean `h m c t` and denominator `h m t`, infinite where the target was computed in float64."""
    spec = Spec(form, tuple(grid), window, causal, outside)
    with torch.autocast(key.device.type, enabled=False):
        if key.is_cuda and torch.cuda.is_current_stream_capturing():
            num, den = _exact(key, value, bias, spec, None)
            return (num / den.unsqueeze(2)).to(value.dtype), torch.full_like(key, float("inf"))
        num, den = _sums(key, value, bias, spec)
        lost = den <= SAFE_DENOMINATOR[den.dtype]
        mean = torch.div(num, den.unsqueeze(2), out=torch.empty_like(value, memory_format=torch.contiguous_format))
        if not bool(lost.any()):
            return mean, den.contiguous()
        num, wide = _exact(key, value, bias, spec, lost)
        mean = torch.where(lost.unsqueeze(2), (num / wide.unsqueeze(2)).to(mean.dtype), mean)
        return mean, den.masked_fill(lost, float("inf"))


@_forward.register_fake
def _(key, value, bias, form, grid, window, causal, outside):
    return torch.empty_like(value, memory_format=torch.contiguous_format), torch.empty_like(
        key, memory_format=torch.contiguous_format
    )


def _pull(
    key: Tensor, value: Tensor, bias: list[Tensor], spec: Spec, gradient: Tensor, mean: Tensor, den: Tensor, *,
    with_bias: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:  # fmt: skip
    c = value.shape[2]
    is_convolution = spec.form == "convolution"
    sums = sums_buffer(value, heads_last=is_convolution)
    num, total = sums[:, :, :c], sums[:, :, c]
    torch.mul(gradient, mean, out=num)
    torch.sum(num, 2, out=total)
    total.div_(den).neg_()
    torch.div(gradient, den.unsqueeze(2), out=num)
    if is_convolution:  # its cheaper sums are safe or not by the size of the denominators
        return depthwise.pull(key, value, bias, spec, sums, den=den, with_bias=with_bias)
    return _FORMS[spec.form].pull(key, value, bias, spec, sums, with_bias=with_bias)


@torch.library.custom_op("aft_lens::weighted_mean_backward", mutates_args=())
def _backward(
    gradient: Tensor, key: Tensor, value: Tensor, bias: Sequence[Tensor], mean: Tensor, den: Tensor, form: str,
    grid: Sequence[int], window: int, causal: bool, outside: str, with_bias: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients of key, value and (if asked for) each bias tensor."""
    spec = Spec(form, tuple(grid), window, causal, outside)
    with torch.autocast(key.device.type, enabled=False):
        parts = _pull(key, value, list(bias), spec, gradient, mean, den, with_bias=with_bias)
        found = [parts[0], parts[1], *parts[2]]
        wide = den == float("inf")
        capturing = key.is_cuda and torch.cuda.is_current_stream_capturing()
        if capturing or bool(wide.any()):
            exact = _double(key, value, *bias)
            den64 = _sums(exact[0], exact[1], exact[2:], spec)[1]
            den64 = den64.masked_fill(~wide, float("inf"))
            more = _pull(
                exact[0], exact[1], exact[2:], spec, gradient.double(), mean.double(), den64, with_bias=with_bias
            )
            for total, part in zip(found, [more[0], more[1], *more[2]], strict=True):
                total += part.to(total.dtype)
        return [part.contiguous() for part in found]


@_backward.register_fake
def _(gradient, key, value, bias, mean, den, form, grid, window, causal, outside, with_bias):
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (key, value, *(bias if with_bias else ()))]


def _setup(ctx, inputs, output):
    key, value, bias, *options = inputs
    ctx.options = options
    ctx.save_for_backward(key, value, *output, *bias)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, gradient, _den):
    key, value, mean, den, *bias = ctx.saved_tensors
    need = any(ctx.needs_input_grad[2])
    grad_key, grad_value, *grads = _backward(gradient.contiguous(), key, value, bias, mean, den, *ctx.options, need)
    return grad_key, grad_value, grads if need else [None] * len(bias), *(None for _ in ctx.options)


_forward.register_autograd(_differentiate, setup_context=_setup)


def weighted_mean(key: Tensor, value: Tensor, bias: Sequence[Tensor], spec: Spec) -> Tensor:
    """Mean `h m c t` of the values `h m c s` under e^(key + bias), key `h m s`, by the form that `spec` names."""
    return _forward(key, value, bias, spec.form, spec.grid, spec.window, spec.causal, spec.outside)[0]
