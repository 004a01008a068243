"""AFT-full and AFT-local: learned pairwise position biases (Eq. 2 and 4), whole or factorized (Eq. 7)."""

from jaxtyping import Bool, Float
from torch import Tensor

from aft_lens.ops import reference
from aft_lens.ops.bias import BiasFactors
from aft_lens.ops.check import check_floating, check_tokens
from aft_lens.ops.forms.spec import Spec, accumulate_dtype
from aft_lens.ops.forms.weighted_mean import weighted_mean
from aft_lens.ops.gate import gate
from aft_lens.ops.kernels import dispatch
from aft_lens.ops.simple import aft_simple, readable, require_source
from aft_lens.ops.transforms import transformed


def aft_full(
    query: Float[Tensor, "b t d"] | None,
    key: Float[Tensor, "b t d"],
    value: Float[Tensor, "b t d"],
    position_bias: Float[Tensor, "targets sources"] | BiasFactors,
    *,
    causal: bool = False,
    key_mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b t d"]:
    """Average values over all sources with weights exp(key + position_bias), gated by the query: Eq. 2.

    `position_bias` is w (`t t`) or its factors (Eq. 7), of which no T x T product is ever held: memory is O(T d),
    forward and backward. `key_mask` is True where a source may be read; `query=None` leaves the gate out
    (Table 12). Sums in float32 or wider, in float64 for targets whose key and bias peak far apart, and with their
    joint maximum where not even that reaches: exact for any finite keys and biases. A later source never moves a bit
    of an earlier causal target. Raises ValueError on a wrong shape or dtype, or a target with no source.
    """
    check_tokens(query, key, value, key_mask)
    _check_bias(position_bias, key.shape[1])
    if transformed():
        w = _written_out(position_bias)
        return reference.aft_full(query, key, value, w, causal=causal, key_mask=key_mask).to(value.dtype)
    spec = Spec("rows", (key.shape[1],), causal=causal)
    return _mean(query, key, value, position_bias, spec, key_mask)


def aft_local(
    query: Float[Tensor, "b t d"] | None,
    key: Float[Tensor, "b t d"],
    value: Float[Tensor, "b t d"],
    position_bias: Float[Tensor, "targets sources"] | BiasFactors,
    window_size: int,
    *,
    causal: bool = False,
    key_mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, "b t d"]:
    """AFT-full whose bias is 0 where |t - t'| >= window_size: Eq. 4. Global connectivity stays.

    Arguments and errors as in `aft_full`; O(T window_size d) time. Causal on CUDA: by Triton kernels where they take
    the dtype, with joint maxima where peaks are far apart, and O(T window_size) memory for the bias. Raises
    ValueError if `window_size` is negative.
    """
    if window_size < 0:
        raise ValueError(f"window_size must be 0 or more, got {window_size}")
    check_tokens(query, key, value, key_mask)
    length = key.shape[1]
    _check_bias(position_bias, length)
    if window_size == 0:
        return aft_simple(query, key, value, causal=causal, key_mask=key_mask)
    if transformed():
        w = _written_out(position_bias)
        mixed = reference.aft_local(query, key, value, w, window_size, causal=causal, key_mask=key_mask)
        return mixed.to(value.dtype)
    if value.is_cuda:
        reason = dispatch.scan_refusal(value, key, query, local=True, causal=causal)
        if reason is None:
            band = dispatch.causal_band(position_bias, min(window_size, length))
            return dispatch.local(query, readable(key, key_mask, causal=True), value, band)
        dispatch.tell(reason, "AFT-local")
    return local_by_products(query, key, value, position_bias, window_size, causal=causal, key_mask=key_mask)


def local_by_products(
    query: Tensor | None, key: Tensor, value: Tensor, position_bias: Tensor | BiasFactors, window_size: int, *,
    causal: bool = False, key_mask: Tensor | None = None,
) -> Float[Tensor, "b t d"]:  # fmt: skip
    """The PyTorch form of `aft_local`, its arguments, with a window of 1 or more; on any device."""
    length = key.shape[1]
    if window_size >= length:
        spec = Spec("rows", (length,), causal=causal)
    else:
        spec = Spec("local", (length,), window_size, causal)
    return _mean(query, key, value, position_bias, spec, key_mask)


def _check_bias(position_bias: Tensor | BiasFactors, length: int) -> None:
    if isinstance(position_bias, BiasFactors):
        u, v = position_bias
        check_floating(position_bias=u)
        check_floating(position_bias=v)
        if u.shape != v.shape or len(u) != length:
            raise ValueError(
                f"position_bias must have two factors of {length} x rank, got {tuple(u.shape)} and {tuple(v.shape)}"
            )
        return
    check_floating(position_bias=position_bias)
    if position_bias.shape != (length, length):
        raise ValueError(f"position_bias must be {length} x {length}, got {tuple(position_bias.shape)}")


def _written_out(position_bias: Tensor | BiasFactors) -> Tensor:
    """w `t s`, in float64 if it is a product."""
    if isinstance(position_bias, BiasFactors):
        return position_bias.target.double() @ position_bias.source.double().T
    return position_bias


def _mean(
    query: Tensor | None,
    key: Tensor,
    value: Tensor,
    position_bias: Tensor | BiasFactors,
    spec: Spec,
    key_mask: Tensor | None,
) -> Tensor:
    """Lay `b t d` out as the `h m s` of the forms (one head, a channel for each image and feature) and back."""
    parts = position_bias if isinstance(position_bias, BiasFactors) else (position_bias,)
    dtype = accumulate_dtype(key, value, *parts)
    k = key.to(dtype).transpose(1, 2)
    if key_mask is not None:
        require_source(key_mask, causal=spec.causal)
        k = k.masked_fill(~key_mask.unsqueeze(1), float("-inf"))
    b, d, length = k.shape
    v = value.to(dtype).transpose(1, 2)
    mean = weighted_mean(
        k.reshape(1, b * d, length), v.reshape(1, b * d, 1, length), [part.to(dtype) for part in parts], spec
    )
    return gate(query, mean.view(b, d, length).transpose(1, 2), value.dtype)
