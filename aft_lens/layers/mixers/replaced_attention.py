"""Softmax attention some of whose heads read by position: by offsets, a map, a kernel or alike, without query and key.

It is what is left of a ViT's attention when heads are replaced by what they do on average (`analyses.compact`): a
replaced head has a value alone. Class and other prefix tokens have no place on the grid: a patch gives each of them a
fixed share, and as targets they read by a fixed row over all tokens.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.head_readers import Slots, head_reader, offsets_kept
from aft_lens.layers.mixer import MIXERS, Mixer, MixerSpec, check_heads, check_input

ATTENTION, MEAN, ZERO = "attention", "mean", "zero"
WITHOUT_VALUE = (MEAN, ZERO)
"""Heads whose output no image changes: they have not even a value."""


class ReplacedAttention(nn.Module):
    """Attention for the heads that are called attention, fixed reading for the others.

    `words` says what each head is, in the ViT's order: attention; offsets:K, map, kernel or uniform; mean, a constant
    output; or zero. Weights lie in `order`: attention first, then by kind. The joint projection gives the queries and
    keys of attention, then the values of all that read. Raises ValueError on a word that there is not.
    """

    columns: Tensor
    """Share that a patch gives each prefix token, `h p`, of the heads that read and do not attend."""
    rows: Tensor
    """What each prefix token as target gives every token, `h p t`."""
    constant: Tensor
    """What heads of constant output add after the projection: to each prefix token, then to every patch, `p+1 d`."""

    def __init__(self, dim: int, words: Sequence[str], grid: tuple[int, int], prefix: int) -> None:
        super().__init__()
        check_heads(dim, len(words))
        self.channels, self.grid, self.prefix = dim // len(words), grid, prefix
        self.kinds = sorted(set(words) - {ATTENTION, *WITHOUT_VALUE})
        self.order = [head for kind in (ATTENTION, *self.kinds) for head, word in enumerate(words) if word == kind]
        a = self.attending = sum(word == ATTENTION for word in words)
        read, tokens = len(self.order), prefix + grid[0] * grid[1]
        readers, start = [], 3 * a
        for kind in self.kinds:
            heads = sum(word == kind for word in words)
            readers.append(head_reader(kind, Slots(heads, start, 2 * a + read, prefix, grid, self.channels)))
            start += heads
        self.readers = nn.ModuleList(readers)
        self.qkv = nn.Linear(dim, (2 * a + read) * self.channels) if read else None
        self.proj = nn.Linear(read * self.channels, dim) if read else None
        if readers and prefix:
            self.register_buffer("columns", torch.full((read - a, prefix), 1 / tokens))
            self.register_buffer("rows", torch.full((read - a, prefix, tokens), 1 / tokens))
        self.has_constant = MEAN in words or not read
        if self.has_constant:
            self.register_buffer("constant", torch.zeros(prefix + 1, dim))

    def forward(self, x: Float[Tensor, "b t d"], grid: Sequence[int]) -> Float[Tensor, "b t d"]:
        """Mix the t tokens, prefix first, whose patches lie on `grid`; ValueError on another grid than its own."""
        check_input(x, self.proj)
        if tuple(grid) != self.grid:
            raise ValueError(f"tokens must lie on the grid {self.grid} that heads were replaced on, got {tuple(grid)}")
        out = torch.zeros_like(x) if self.qkv is None or self.proj is None else self.proj(self._read(self.qkv(x)))
        if not self.has_constant:
            return out
        constant = self.constant.to(out)
        patches = constant[self.prefix :].expand(x.shape[1] - self.prefix, -1)
        return out + torch.cat([constant[: self.prefix], patches])

    def _read(self, projected: Float[Tensor, "b t dslot"]) -> Float[Tensor, "b t dread"]:
        """What all heads read, side by side."""
        slots = projected.unflatten(2, (-1, self.channels))
        parts, a = [], self.attending
        if a:
            query, key, value = (slots[:, :, i * a : (i + 1) * a].transpose(1, 2) for i in range(3))
            parts.append(F.scaled_dot_product_attention(query, key, value).transpose(1, 2))
        if self.kinds:
            parts.append(self._placed(slots))
        return (parts[0] if len(parts) == 1 else torch.cat(parts, 2)).flatten(2)

    def _placed(self, slots: Float[Tensor, "b t slot c"]) -> Float[Tensor, "b t h c"]:
        """What the heads read that do not attend."""
        parts = [reader(slots) for reader in self.readers]
        patches = parts[0] if len(parts) == 1 else torch.cat(parts, 2)
        if not self.prefix:
            return patches
        values = slots[:, :, 3 * self.attending :].transpose(1, 2)  # b h t c
        given = self.columns.to(values).unsqueeze(1) @ values[:, :, : self.prefix]  # b h 1 c
        own = self.rows.to(values) @ values  # b h p c
        return torch.cat([own.transpose(1, 2), patches + given.transpose(1, 2)], 1)


def _build(spec: MixerSpec) -> ReplacedAttention:
    rows, columns = spec.grid
    words = spec.heads or (ATTENTION,) * spec.num_heads
    return ReplacedAttention(spec.dim, words, (rows, columns), spec.prefix)


def _check(spec: MixerSpec) -> str | None:
    if spec.heads and len(spec.heads) != spec.num_heads:
        return f"heads must say what each of {spec.num_heads} heads of a block is, got {' '.join(spec.heads)!r:.200}"
    try:
        for word in spec.heads:
            if word not in (ATTENTION, *WITHOUT_VALUE):
                offsets_kept(word)
    except ValueError as error:
        return str(error)
    return None


MIXERS.add(
    "replaced_attention", Mixer(_build, "ViT, heads replaced", weights="replaced", any_prefix=True, check=_check)
)
