"""One vision skeleton for every mixer: stem, blocks, norm, pooled or class-token classifier."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.block import Block
from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.layers.mixers.aft_full import AFTFull
from aft_lens.layers.mixers.attention import Attention
from aft_lens.layers.mixers.lambda_layer import Lambda
from aft_lens.layers.mixers.linear_attention import LinearAttention, performer
from aft_lens.layers.mixers.reformer import Reformer
from aft_lens.layers.mixers.sparse_attention import sparse_attention
from aft_lens.layers.mixers.synthesizer import Synthesizer
from aft_lens.layers.patch_embedding import PatchEmbedding
from aft_lens.layers.position_bias import Indexed, conv_bias, pair_bias
from aft_lens.layers.position_embedding import resample_positions
from aft_lens.models.config import RIVALS, ModelConfig
from aft_lens.models.initialize import initialize

POOLED = ("aft_conv", "lambda")
"""Mixers of a grid: no class token, average pooling before the classifier (Sec. 5.3)."""
ANY_SIZE = (*POOLED, "attention")
"""Mixers that take images of other sizes than the training one; attention with interpolated position embeddings."""


class VisionModel(nn.Module):
    """A ViT whose attention is any of the mixers (Sec. 5.3).

    AFT-conv has no position embedding and no class token, pools over the grid and takes any image size that is a
    multiple of the patch. So does softmax attention, whose position embeddings are interpolated at another size than
    the training one (`resample_positions`). The others take the training size alone.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.stem = _stem(config)
        self.has_class_token = config.mixer not in POOLED
        if self.has_class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
            self.pos_embed = nn.Parameter(torch.zeros(1, config.grid_size**2 + 1, dim))
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(
            Block(dim, _mixer(config, i), mlp_ratio=config.mlp_ratio, drop_path=rate) for i, rate in enumerate(rates)
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, config.num_classes)
        initialize(self, *((self.cls_token, self.pos_embed) if self.has_class_token else ()))

    def grid(self, image: Float[Tensor, "b c y x"]) -> tuple[int, int]:
        """Patches of an image, (rows, columns). Raises ValueError if the model cannot take its size."""
        patch, size = self.config.patch_size, self.config.img_size
        rows, columns = image.shape[2:]
        if self.config.mixer not in ANY_SIZE and (rows, columns) != (size, size):
            raise ValueError(f"image must be {size} x {size} for {self.config.mixer}, got {rows} x {columns}")
        if rows % patch or columns % patch or not rows or not columns:
            raise ValueError(f"image sides must be multiples of patch_size {patch}, got {rows} x {columns}")
        return rows // patch, columns // patch

    def forward(self, image: Float[Tensor, "b c y x"]) -> Float[Tensor, "b n"]:
        """Class logits of a batch of normalised images."""
        grid = self.grid(image)
        x = self.stem(image).flatten(2).transpose(1, 2)
        x = x.contiguous()  # copies after the "conv" stem alone; or every sum below keeps channels apart in memory
        if self.has_class_token:
            side = self.config.grid_size
            place = resample_positions(self.pos_embed, (side, side), grid)
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + place
        for block in self.blocks:
            x = block(x, grid)
        x = self.norm(x)
        return self.head(x[:, 0] if self.has_class_token else x.mean(1))


def _stem(config: ModelConfig) -> nn.Module:
    """Image to tokens: `b c y x` to `b d rows columns`."""
    dim, patch = config.embed_dim, config.patch_size
    if config.stem == "patch":
        return PatchEmbedding(config.in_chans, dim, patch)
    return nn.Sequential(
        nn.Conv2d(config.in_chans, dim // 2, 3, padding=1, bias=False),
        nn.BatchNorm2d(dim // 2),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, patch + 2, patch, padding=1),
    )


def _mixer(config: ModelConfig, block: int) -> nn.Module:
    """The token mixer of the block of that number."""
    if config.mixer == "attention":
        return Attention(config.embed_dim, config.num_heads)
    if config.mixer == "aft_conv":
        side = config.window_size
        if config.keep:
            shape = (config.num_heads, config.keep[block])
            bias: nn.Module = Indexed(torch.zeros(shape), torch.zeros(*shape, 2, dtype=torch.long))
        else:
            sides, single = (side, side), config.straight_through
            bias = conv_bias(config.bias_kind, config.num_heads, sides, config.temperature, straight_through=single)
        return AFTConv(config.embed_dim, config.num_heads, bias, use_query=config.use_query, outside=config.outside)
    length = config.grid_size**2 + 1
    if config.mixer in RIVALS:
        return _rival(config, length)
    window = config.window_size if config.mixer == "aft_local" else None
    pair = None if config.mixer == "aft_simple" else pair_bias(config.bias_kind, length, config.bias_rank, window)
    return AFTFull(config.embed_dim, pair, window_size=window, use_query=config.use_query)


def _rival(config: ModelConfig, length: int) -> nn.Module:
    """A mixer of Tables 1, 2, 4 and 7 that is neither AFT nor plain softmax attention."""
    dim, heads, side = config.embed_dim, config.num_heads, config.grid_size
    if config.mixer == "synthesizer":
        return Synthesizer(dim, heads, length)
    if config.mixer == "linear_attention":
        return LinearAttention(dim, heads)
    if config.mixer == "performer":
        return performer(dim, heads)
    if config.mixer == "reformer":
        return Reformer(dim, heads, bucket_size=config.window_size)
    if config.mixer == "lambda":
        return Lambda(dim, heads, side)
    pattern = "local2d" if config.mixer == "local_attention" else "strided"
    return sparse_attention(pattern, dim, heads, (side, side), config.window_size)
