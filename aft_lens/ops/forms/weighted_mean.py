"""The weighted mean of every operator as one differentiable op that a compiler sees whole.

`weighted_mean` sums in the input's dtype (float32 or float64) and looks for denominators so small that terms may have
been lost (key and bias peaking at sources far apart). Heads and rows that have such targets are summed in float64,
which holds any keys and biases that peak within 400 nats of each other (causal: and no key more than 250 nats above
those before it); targets beyond that take their own joint maximum (`exact_rows`). Other targets keep their bits. The
look is one comparison; on a GPU it waits for the result once a call, except while a CUDA graph is captured, where
float64 is used throughout and reaches so far.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from aft_lens.ops.forms import band, blocks, depthwise, exact_rows
from aft_lens.ops.forms.choice import chosen
from aft_lens.ops.forms.columns import SAFE_DENOMINATOR, sums_buffer
from aft_lens.ops.forms.spec import Spec, unnarrowed

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


def _wide_sums(key: Tensor, value: Tensor, bias: Sequence[Tensor], spec: Spec) -> tuple[Tensor, Tensor]:
    """The sums in float64."""
    return (_causal_sums if spec.causal else _sums)(key.double(), value.double(), _double(*bias), spec)


def _captured(key: Tensor, value: Tensor, bias: Sequence[Tensor], spec: Spec) -> Tensor:
    """The mean in float64 where nothing may be looked at; 0 for targets that read nothing."""
    num, den = _wide_sums(key, value, bias, spec)
    empty = _reads_nothing(key, value, bias, spec)
    return num.masked_fill(empty.unsqueeze(2), 0.0) / den.masked_fill(empty, 1.0).unsqueeze(2)


def _exact(key: Tensor, value: Tensor, bias: Sequence[Tensor], spec: Spec, lost: Tensor) -> Tensor:
    """The mean in float64, right for the targets that are lost in narrower sums."""
    num, den = _wide_sums(key, value, bias, spec)
    mean = num / den.unsqueeze(2)
    gone = lost & (den <= SAFE_DENOMINATOR[torch.float64])
    if bool(gone.any()):
        head, row, target = where = _places(gone)
        mean[head, row, :, target] = exact_rows.means(key, value, _double(*bias), spec, where)
    return mean


def _places(targets: Tensor) -> exact_rows.Where:
    """Head, row and target of those that are True."""
    head, row, target = targets.nonzero(as_tuple=True)
    return head, row, target


class _Part:
    """The heads and rows that have one of some targets, of tensors `h m ...`; biases are by head, or shared by all."""

    def __init__(self, targets: Tensor) -> None:
        touched = targets.any(-1)
        self.heads, self.rows = touched.any(1).nonzero()[:, 0], touched.any(0).nonzero()[:, 0]
        self.place = self.heads.unsqueeze(1), self.rows
        self.shared = len(targets) == 1

    def of(self, x: Tensor) -> Tensor:
        """That of `h m ...`."""
        return x[self.place]

    def of_bias(self, bias: Sequence[Tensor]) -> list[Tensor]:
        """That of the tensors of a bias."""
        return list(bias) if self.shared else [part[self.heads] for part in bias]

    def add(self, total: Sequence[Tensor], found: Sequence[Tensor]) -> None:
        """Add gradients of key, value and bias to those of all heads and rows."""
        for whole, part in zip(total[:2], found[:2], strict=True):
            whole[self.place] += part.to(whole.dtype)
        for whole, part in zip(total[2:], found[2:], strict=True):
            if self.shared:
                whole += part.to(whole.dtype)
            else:
                whole[self.heads] += part.to(whole.dtype)


def _reads_nothing(key: Tensor, value: Tensor, bias: Sequence[Tensor], spec: Spec) -> Tensor:
    """Targets, `h m t`, whose every source has weight 0 as its key or bias is -inf (factors of a bias are finite)."""
    no_key = torch.zeros_like(key).masked_fill(key == float("-inf"), float("-inf"))
    flat = [torch.zeros_like(part) for part in bias]
    if len(bias) == 1:
        flat = [flat[0].masked_fill(bias[0] == float("-inf"), float("-inf"))]
    return _sums(no_key, torch.zeros_like(value[:, :, :1]), flat, spec)[1] == 0


@torch.library.custom_op("aft_lens::weighted_mean", mutates_args=())
def _forward(
    key: Tensor, value: Tensor, bias: Sequence[Tensor], form: str, grid: Sequence[int], window: int, causal: bool,
    outside: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mean `h m c t` and denominator `h m t`, infinite where the target was computed in float64."""
    spec = chosen(Spec(form, tuple(grid), window, causal, outside), value, bias)
    with unnarrowed(key):
        if key.is_cuda and torch.cuda.is_current_stream_capturing():
            mean = _captured(key, value, bias, spec)
            return mean.to(value.dtype).contiguous(), torch.full_like(key, float("inf"))
        num, den = _sums(key, value, bias, spec)
        lost = den <= SAFE_DENOMINATOR[den.dtype]
        mean = torch.div(num, den.unsqueeze(2), out=torch.empty_like(value, memory_format=torch.contiguous_format))
        if bool(lost.any()):
            part = _Part(lost)
            found = _exact(part.of(key), part.of(value), part.of_bias(bias), spec, part.of(lost)).to(mean.dtype)
            mean[part.place] = torch.where(part.of(lost).unsqueeze(2), found, part.of(mean))
        return mean, den.masked_fill(lost, float("inf")).contiguous()


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
    spec = chosen(Spec(form, tuple(grid), window, causal, outside), value, bias)
    with unnarrowed(key):
        parts = _pull(key, value, list(bias), spec, gradient, mean, den, with_bias=with_bias)
        found = [part.contiguous() for part in (parts[0], parts[1], *parts[2])]
        wide = den == float("inf")
        if key.is_cuda and torch.cuda.is_current_stream_capturing():
            more = _wide_pull(key, value, bias, spec, gradient, mean, wide, with_bias=with_bias, look=False)
            for total, part in zip(found, more, strict=True):
                total += part.to(total.dtype)
        elif bool(wide.any()):
            block = _Part(wide)
            inputs = block.of(key), block.of(value), block.of_bias(bias), spec, block.of(gradient), block.of(mean)
            block.add(found, _wide_pull(*inputs, block.of(wide), with_bias=with_bias, look=True))
        return found


def _wide_pull(
    key: Tensor, value: Tensor, bias: Sequence[Tensor], spec: Spec, gradient: Tensor, mean: Tensor, wide: Tensor, *,
    with_bias: bool, look: bool,
) -> list[Tensor]:  # fmt: skip
    """What the targets that were computed in float64 bring, in float64; `look` for those that not even it reaches."""
    exact, gradient = _double(key, value, *bias), gradient.double()
    den = _sums(exact[0], exact[1], exact[2:], spec)[1]
    gone = wide & (den <= SAFE_DENOMINATOR[torch.float64] if look else den == 0)  # 0: the target reads nothing
    den = den.masked_fill(~wide | gone, float("inf"))
    parts = _pull(exact[0], exact[1], exact[2:], spec, gradient, mean.double(), den, with_bias=with_bias)
    found = [part.contiguous() for part in (parts[0], parts[1], *parts[2])]
    if look and bool(gone.any()):
        head, row, target = where = _places(gone)
        exact_rows.pull(key, value, exact[2:], spec, where, gradient[head, row, :, target], found)
    return found


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
