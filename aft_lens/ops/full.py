"""AFT-full and AFT-local: learned pairwise position biases (Eq. 2 and 4), whole or factorized (Eq. 7)."""

from jaxtyping import Bool, Float
from torch import Tensor

from aft_lens.ops.bias import BiasFactors
from aft_lens.ops.check import check_tokens
from aft_lens.ops.forms.causal_window import causal_window_bias
from aft_lens.ops.forms.choice import local_form
from aft_lens.ops.forms.spec import Spec, accumulate_dtype
from aft_lens.ops.forms.weighted_mean import weighted_mean
from aft_lens.ops.gate import gate
from aft_lens.ops.kernels import dispatch
from aft_lens.ops.simple import aft_simple, readable, require_source


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
    (Table 12). Sums in float32 or wider, in float64 for targets whose key and bias peak far apart; a later source
    never moves a bit of an earlier causal target. Raises ValueError on a wrong shape or a target with no source,
    FloatingPointError where peaks are more than 400 nats apart or a causal key rises 250 nats above those before it.
    """
    check_tokens(query, key, value, key_mask)
    _check_bias(position_bias, key.shape[1])
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
    if value.is_cuda:
        reason = dispatch.scan_refusal(value, local=True, causal=causal)
        if reason is None:
            band = causal_window_bias(position_bias, min(window_size, length))
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
        spec = Spec(local_form(length, window_size), (length,), window_size, causal)
    return _mean(query, key, value, position_bias, spec, key_mask)


def _check_bias(position_bias: Tensor | BiasFactors, length: int) -> None:
    if isinstance(position_bias, BiasFactors):
        u, v = position_bias
        if u.shape != v.shape or len(u) != length:
            raise ValueError(
                f"position_bias must have two factors of {length} x rank, got {tuple(u.shape)} and {tuple(v.shape)}"
            )
    elif position_bias.shape != (length, length):
        raise ValueError(f"position_bias must be {length} x {length}, got {tuple(position_bias.shape)}")


def _mean(
    query: Tensor | None,
    key: Tensor,
    value: Tensor,
    position_bias: Tensor | BiasFactors,
    spec: Spec,
    key_mask: Tensor | None,
) -> Tensor:
    """Lay `b t d` out as the `h m s` of the forms (one head, a channel for each image and feature) and back."""
    dtype = accumulate_dtype(value.dtype)
    k = key.to(dtype).transpose(1, 2)
    if key_mask is not None:
        require_source(key_mask, causal=spec.causal)
        k = k.masked_fill(~key_mask.unsqueeze(1), float("-inf"))
    b, d, length = k.shape
    v = value.to(dtype).transpose(1, 2)
    parts = position_bias if isinstance(position_bias, BiasFactors) else (position_bias,)
    mean = weighted_mean(
        k.reshape(1, b * d, length), v.reshape(1, b * d, 1, length), [part.to(dtype) for part in parts], spec
    )
    return gate(query, mean.view(b, d, length).transpose(1, 2), value.dtype)
