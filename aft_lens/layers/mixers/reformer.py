"""Reformer's LSH attention, from reformer-pytorch (the `baselines` extra)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.future import exposed, shielded
from aft_lens.layers.hook_point import HookPoint
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec, check_heads, check_input
from aft_lens.layers.optional import baseline


class Reformer(nn.Module):
    """LSH attention of Kitaev et al. 2020 with shared queries and keys, from reformer-pytorch.

    `bucket_size` and `n_hashes` are its bucket length and hashing rounds (64 and 8 recommended by the package).
    The tokens are padded to a multiple of two buckets. Raises ImportError without the `baselines` extra.
    """

    def __init__(
        self, dim: int, num_heads: int, *, bucket_size: int = 64, n_hashes: int = 8, causal: bool = False
    ) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads, self.bucket_size, self.causal = num_heads, bucket_size, causal
        self.attend = baseline("reformer_pytorch").LSHAttention(
            bucket_size=bucket_size, n_hashes=n_hashes, causal=causal
        )
        self.query_key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.hook_value = HookPoint()

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Attend among the t tokens; `grid` is taken for the mixers' common signature and not used."""
        check_input(x, self.proj)
        b, t, d = x.shape
        pad = -t % (2 * self.bucket_size)
        *parts, lost = shielded(self.causal and not self.training, self.query_key(x), self.value(x))
        heads = [part.reshape(b, t, self.num_heads, -1).transpose(1, 2) for part in parts]
        heads[1] = self.hook_value(heads[1])
        query_key, value = (F.pad(part, (0, 0, 0, pad)).flatten(0, 1) for part in heads)
        mask = torch.ones(b * self.num_heads, t, dtype=torch.bool, device=x.device)
        mixed = self.attend(query_key, value, input_mask=F.pad(mask, (0, pad), value=False))[0][:, :t]
        return exposed(self.proj(mixed.reshape(b, self.num_heads, t, -1).transpose(1, 2).reshape(b, t, d)), lost)


def _build(spec: MixerSpec) -> Reformer:
    """`window_size` is the bucket length, in tokens."""
    return Reformer(spec.dim, spec.num_heads, bucket_size=spec.window_size, causal=spec.causal)


MIXERS.add("reformer", Mixer(_build, "Reformer", causal=True))
