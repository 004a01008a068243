"""Decoders by name: those of Tables 2 to 6, and small ones that a CPU trains.

A name says mixer, depth x width, and what else tells it from its neighbours: s the window, h the heads, t the length.
"""

from dataclasses import replace
from typing import Any

from aft_lens.models.decoder import Decoder, DecoderConfig
from aft_lens.models.named import Named

_PIXELS = DecoderConfig(length=3072, grid=(32, 32, 3), bias_rank=64, window_size=256)
_TEXT = DecoderConfig()
_WIDE: dict[str, Any] = {"depth": 12, "embed_dim": 512}
_DEEP: dict[str, Any] = {"depth": 24, "embed_dim": 256}

_DECODERS: dict[str, DecoderConfig] = {
    # Table 2, CIFAR-10; Table 3 has the second with position_bias free.
    "aft_local_12x512_s256": replace(_PIXELS, **_WIDE),
    "aft_local_24x256_s256": replace(_PIXELS, **_DEEP),
    "aft_simple_24x256_t3072": replace(_PIXELS, mixer="aft_simple", **_DEEP),
    "transformer_12x512_h4": replace(_PIXELS, mixer="attention", num_heads=4, **_WIDE),
    "transformer_24x256_h2": replace(_PIXELS, mixer="attention", num_heads=2, **_DEEP),
    "image_transformer_12x512_h4": replace(_PIXELS, mixer="local_attention", num_heads=4, window_size=16, **_WIDE),
    "sparse_transformer_128x256_h2": replace(_PIXELS, mixer="strided_attention", num_heads=2, depth=128, embed_dim=256),
    # Table 4, Enwik8; Table 5 changes window_size of the second, Table 6 its length.
    "aft_local_12x512_s32": replace(_TEXT, **_WIDE),
    "aft_local_24x256_s32": replace(_TEXT, **_DEEP),
    "aft_local_24x256_s32_t2048": replace(_TEXT, length=2048, **_DEEP),
    "aft_local_24x256_s32_t4096": replace(_TEXT, length=4096, **_DEEP),
    "aft_simple_24x256_t1024": replace(_TEXT, mixer="aft_simple", **_DEEP),
    "transformer_12x512_h8": replace(_TEXT, mixer="attention", num_heads=8, **_WIDE),
    "transformer_24x256_h4": replace(_TEXT, mixer="attention", num_heads=4, **_DEEP),
    "reformer_12x512_h8": replace(_TEXT, mixer="reformer", num_heads=8, window_size=64, **_WIDE),
    "synthesizer_12x512_h8": replace(_TEXT, mixer="synthesizer", num_heads=8, **_WIDE),
    "linear_transformer_12x512_h8": replace(_TEXT, mixer="linear_attention", num_heads=8, **_WIDE),
    "performer_12x512_h8": replace(_TEXT, mixer="performer", num_heads=8, **_WIDE),
}
"""The paper's: dropout 0.1, MLPs four times as wide as tokens; local2d windows of 16 x 16 are 256 symbols."""
_DIGITS = DecoderConfig(
    length=64, grid=(8, 8, 1), embed_dim=64, depth=3, num_heads=4, mlp_ratio=2.0, window_size=16, bias_rank=16
)
_DECODERS["aft_local_digits"] = _DIGITS
_DECODERS["aft_simple_digits"] = replace(_DIGITS, mixer="aft_simple")
_DECODERS["transformer_digits"] = replace(_DIGITS, mixer="attention")
_FASHION = DecoderConfig(length=784, grid=(28, 28, 1), embed_dim=96, depth=4, num_heads=4, window_size=64, bias_rank=16)
_DECODERS["aft_local_fashion"] = _FASHION
_DECODERS["aft_simple_fashion"] = replace(_FASHION, mixer="aft_simple")
_DECODERS["transformer_fashion"] = replace(_FASHION, mixer="attention")
_SMALL_TEXT = DecoderConfig(length=256, embed_dim=128, depth=4, num_heads=4, window_size=32, bias_rank=16)
_DECODERS["aft_local_text"] = _SMALL_TEXT
_DECODERS["aft_simple_text"] = replace(_SMALL_TEXT, mixer="aft_simple")
_DECODERS["transformer_text"] = replace(_SMALL_TEXT, mixer="attention")

DECODERS = Named("decoder", _DECODERS, Decoder)
"""Every registered decoder."""


def list_decoders() -> list[str]:
    """Registered names, in alphabetical order."""
    return DECODERS.names()


def decoder_config(name: str, **overrides: Any) -> DecoderConfig:
    """The configuration of a registered name with fields replaced.

    Raises ValueError on an unknown name (and says which there are) and TypeError on an unknown field.
    """
    return DECODERS.config(name, **overrides)


def create_decoder(name: str, **overrides: Any) -> Decoder:
    """Build a registered decoder with fresh weights; errors as in `decoder_config`."""
    return DECODERS.create(name, **overrides)
