r"""AFT-conv's sums by depth-wise convolution, without cancellation (not causal).

Eq. 6 adds conv(expm1(w)) to a global sum, which cancels where w is very negative on a dominant key. With
a = max(0, max w) and S = e^(K - m) [V, 1] the same sums are

    sum_{s in window} e^(w - a) S_s  +  e^(-a) sum_{s outside the window} S_s,

all of whose weights are >= 0. The outside sum is itself taken from running sums and 0/1 bands, never a total minus a
box. Where min w >= `MILD`, Eq. 6's own form is kept: a weight e^w >= e^MILD makes cancellation lose a factor of
e^-MILD at most, and it is cheaper. The backward pass keeps it too where every denominator has at least e^MILD of the
total, which bounds its error by the same factor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from aft_lens.ops.forms.columns import columns, finite, pull_columns
from aft_lens.ops.forms.spec import Spec

MILD = -2.0
"""Above this smallest bias, (e^w - 1) + 1 loses less than one decimal digit."""
SMALL_GRID = 100
"""Grids of at most so many positions sum what is beyond the window by one 0/1 matrix for the whole grid."""
LARGEST_PADDING = 6
"""A CPU's fast depth-wise kernels pad rows by at most this much themselves; wider zeros are written out for them,
which is some thirty times faster than their slow path."""
LONGEST_BAND = 512
"""Sides above this sum what is beyond the window by prefix and suffix instead of a 0/1 matrix."""


def sums(key: Tensor, value: Tensor, bias: list[Tensor], spec: Spec) -> tuple[Tensor, Tensor]:
    """Numerator `h m c t` and denominator `h m t` from key `h m s` and value `h m c s`."""
    c = value.shape[2]
    mixed = columns(key, value, finite(key.amax(-1, keepdim=True)), heads_last=True)
    mild = _is_mild(bias[0], spec)
    kernel, scale = _kernel(bias[0], spec, mild)
    image = _image(mixed, spec)
    out = _depthwise(image, kernel)
    if scale is not None:
        _add_rest(out, image, _radius(kernel), scale, mild)
    out = _flat(out, mixed)
    return out[:, :, :c], out[:, :, c]


def pull(
    key: Tensor, value: Tensor, bias: list[Tensor], spec: Spec, gradient: Tensor, *, den: Tensor, with_bias: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Gradients of key, value and bias from the gradient of the sums, `h m c+1 t`; `den` as the sums had it."""
    mixed = columns(key, value, finite(key.amax(-1, keepdim=True)), heads_last=True)
    mild = _is_mild(bias[0], spec) or _has_mild_sums(bias[0], spec, mixed, den)
    kernel, scale = _kernel(bias[0], spec, mild)
    image, back = _image(mixed, spec), _image(gradient, spec)
    moved = _depthwise(back, kernel.flip(1, 2))
    if scale is not None:
        _add_rest(moved, back, _radius(kernel), scale, mild)
    grads = []
    if with_bias:
        w = bias[0]
        weight = torch.exp(w - _shift(w, spec)).view(kernel.shape)
        grads = [(_correlate(image, back, _radius(kernel)) * weight).view(w.shape)]
    return *pull_columns(mixed, value, _flat(moved, mixed)), grads


def _shift(w: Tensor, spec: Spec) -> Tensor:
    """a, one a head: the largest log-weight there is, `h 1 ...`."""
    peak = w.flatten(1).amax(1)
    peak = peak.clamp(min=0.0) if spec.outside == "global" else finite(peak)
    return peak.view(-1, *(1 for _ in w.shape[1:]))


def _is_mild(w: Tensor, spec: Spec) -> bool:
    """Whether Eq. 6's form is safe whatever the keys are (asked on a CPU, where the answer costs nothing)."""
    return spec.outside == "global" and w.is_cpu and bool(w.amin() >= MILD)


def _has_mild_sums(w: Tensor, spec: Spec, mixed: Tensor, den: Tensor) -> bool:
    """Whether no denominator `h m t` (infinite: not asked for) is below e^MILD of the total that Eq. 6 starts from."""
    if spec.outside != "global" or not w.is_cpu:
        return False
    least = mixed[:, :, -1].sum(-1, keepdim=True) * torch.exp(MILD - _shift(w, spec)).view(-1, 1, 1)
    return bool((den >= least).all())


def _kernel(w: Tensor, spec: Spec, mild: bool) -> tuple[Tensor, Tensor | None]:
    """Window weights `h y x` (less the weight outside if `mild`), and the weight outside (None: nothing there)."""
    shift = _shift(w, spec)
    weight = torch.exp(w - shift)
    scale = None
    if spec.outside == "global":
        scale = torch.exp(-shift).view(1, -1, 1, 1)
        if mild:
            small = torch.expm1(w.clamp(max=1.0)) * torch.exp(-shift)
            weight = torch.where(w > 1.0, weight - torch.exp(-shift), small)
    return weight if weight.ndim == 3 else weight.unsqueeze(1), scale


def _image(mixed: Tensor, spec: Spec) -> Tensor:
    """`h m c t`, laid out with the heads last but one, as images `(m c) h y x`; a 1-D grid is one row."""
    rows = spec.grid[0] if len(spec.grid) == 2 else 1
    return mixed.movedim(0, 2).flatten(0, 1).unflatten(-1, (rows, spec.grid[-1]))


def _flat(image: Tensor, like: Tensor) -> Tensor:
    """Images back as `h m c t`."""
    return image.flatten(2).unflatten(0, like.shape[1:3]).movedim(2, 0)


def _radius(kernel: Tensor) -> list[int]:
    return [side // 2 for side in kernel.shape[1:]]


def _depthwise(image: Tensor, kernel: Tensor) -> Tensor:
    return _convolve(image, kernel.unsqueeze(1), _radius(kernel))


def _convolve(image: Tensor, kernel: Tensor, radius: list[int]) -> Tensor:
    """Depth-wise convolution of `n h y x` with `h 1 y x`, `radius` zeros around the image."""
    rows, cols = radius
    if image.is_cpu and cols > LARGEST_PADDING:
        image, cols = F.pad(image, (cols, cols)), 0
    return F.conv2d(image, kernel, padding=(rows, cols), groups=len(kernel))


def _correlate(image: Tensor, back: Tensor, radius: list[int]) -> Tensor:
    """sum_{n,t} image[t + offset] back[t], shape `h y x`: the kernel's gradient.

    On a CPU a depth-wise convolution whose kernels are the gradient images: many times faster than the backward of a
    depth-wise convolution.
    """
    n, h, rows, cols = image.shape
    if not image.is_cpu:
        kernel = image.new_empty(h, 1, 2 * radius[0] + 1, 2 * radius[1] + 1)
        mask = [False, True, False]
        return torch.ops.aten.convolution_backward(
            back, image, kernel, None, [1, 1], radius, [1, 1], False, [0, 0], h, mask
        )[1][:, 0]
    out = _convolve(image.view(1, n * h, rows, cols), back.view(n * h, 1, rows, cols), radius)
    return out.view(n, h, *out.shape[2:]).sum(0)


def _add_rest(out: Tensor, image: Tensor, radius: list[int], scale: Tensor, mild: bool) -> None:
    """Add `scale` times the sum over everything (`mild`) or over everything outside the window to `out`."""
    rows, cols = image.shape[2:]
    if mild:
        out.addcmul_(image.sum((2, 3), keepdim=True), scale)
    elif image.is_cpu and rows > 1 and rows * cols > SMALL_GRID and cols <= LONGEST_BAND:
        _add_beyond(out, image, radius, scale)
    else:
        out.addcmul_(beyond(image, radius), scale)


def _add_beyond(out: Tensor, image: Tensor, radius: list[int], scale: Tensor) -> None:
    """`beyond` with one full-size buffer: rows out of reach by running sums, within reach in x; then the columns."""
    rows, cols = image.shape[2:]
    reach, scale = radius[0] + 1, scale.squeeze(2)
    far = torch.empty_like(image)
    row, far_row = image.unbind(2), far.unbind(2)
    below = above = torch.zeros_like(row[0])
    for y in range(rows - reach - 1, -1, -1):
        below = torch.addcmul(below, row[y + reach], scale, out=far_row[y])
    for y in range(reach, rows):
        if y < rows - reach:
            far_row[y].add_(above.addcmul_(row[y - reach], scale))
        else:
            above = torch.addcmul(above, row[y - reach], scale, out=far_row[y])
    for y in range(max(0, rows - reach), min(reach, rows)):
        far_row[y].zero_()
    band = _band(cols, radius[1], image)
    out.view(-1, cols).addmm_(far.view(-1, cols), 1.0 - band)
    out.add_((image.sum(2) @ band).mul_(scale).unsqueeze(2))


def _band(size: int, radius: int, like: Tensor) -> Tensor:
    """1 where two positions of a side are more than `radius` apart, `t s`."""
    position = torch.arange(size, device=like.device)
    return ((position.unsqueeze(1) - position).abs() > radius).to(like.dtype)


def _far(x: Tensor, radius: int) -> Tensor:
    """Sum along the last dimension of everything more than `radius` away."""
    size = x.shape[-1]
    if radius + 1 >= size:
        return torch.zeros_like(x)
    if size <= LONGEST_BAND:
        return x @ _band(size, radius, x)
    before = x.cumsum(-1)[..., : size - radius - 1]
    after = x.flip(-1).cumsum(-1).flip(-1)[..., radius + 1 :]
    return F.pad(before, (radius + 1, 0)) + F.pad(after, (0, radius + 1))


def beyond(image: Tensor, radius: list[int]) -> Tensor:
    """Sum of everything outside the window around each position of `n h y x`."""
    rows, cols = image.shape[2:]
    if rows > 1 and rows * cols <= SMALL_GRID:
        sides_near = [1.0 - _band(size, r, image) for size, r in zip((rows, cols), radius, strict=True)]
        return (image.flatten(2) @ (1.0 - torch.kron(*sides_near))).view(image.shape)
    sides = _far(image, radius[1])
    if rows == 1:
        return sides
    near = 1.0 - _band(rows, radius[0], image)
    return (near @ sides).add_(_far(image.sum(-1), radius[0]).unsqueeze(-1))
