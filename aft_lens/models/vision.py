"""One vision skeleton for every mixer: stem, blocks, norm, pooled or class-token classifier."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aft_lens.layers.block import Block
from aft_lens.layers.mixers.aft_conv import AFTConv
from aft_lens.layers.patch_embedding import PatchEmbedding
from aft_lens.layers.position_embedding import resample_positions
from aft_lens.models.config import ModelConfig
from aft_lens.models.initialize import initialize


class VisionModel(nn.Module):
    """A ViT whose attention is any of the mixers (Sec. 5.3).

    A pooled mixer (AFT-conv) has no position embedding and no class token, and is averaged over the grid. A mixer of
    any size takes images of every size that is a multiple of the patch; position embeddings are interpolated at
    another size than the training one (`resample_positions`). The others take the training size alone.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.stem = _stem(config)
        self.has_positions = not config.traits.pooled
        if self.has_positions:
            self.cls_token = nn.Parameter(torch.zeros(1, config.prefix, dim))
            self.pos_embed = nn.Parameter(torch.zeros(1, config.grid_size**2 + config.prefix, dim))
        rates = [config.drop_path * i / max(1, config.depth - 1) for i in range(config.depth)]
        self.blocks = nn.ModuleList(
            Block(
                dim, config.traits.build(config.spec(i)), mlp_ratio=config.mlp_ratio, drop_path=rate,
                norm_eps=config.norm_eps,
            )
            for i, rate in enumerate(rates)
        )  # fmt: skip
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        features = 2 * dim if config.pooling == "token_mean" else dim
        self.head = nn.Linear(features, config.num_classes) if config.num_classes else nn.Identity()
        initialize(self, *((self.cls_token, self.pos_embed) if self.has_positions else ()))

    def grid(self, image: Float[Tensor, "b c y x"]) -> tuple[int, int]:
        """Patches of an image, (rows, columns). Raises ValueError if the model cannot take its size."""
        patch, size = self.config.patch_size, self.config.img_size
        rows, columns = image.shape[2:]
        if not self.config.traits.any_size and (rows, columns) != (size, size):
            raise ValueError(f"image must be {size} x {size} for {self.config.mixer}, got {rows} x {columns}")
        if rows % patch or columns % patch or not rows or not columns:
            raise ValueError(f"image sides must be multiples of patch_size {patch}, got {rows} x {columns}")
        return rows // patch, columns // patch

    def prepare(self, dtype: torch.dtype = torch.float32) -> "VisionModel":
        """Keep what evaluation on the model's own grid makes of AFT-conv's biases alone: see `AFTConv.prepare`."""
        for block in self.blocks:
            if isinstance(block.mixer, AFTConv):
                block.mixer.prepare((self.config.grid_size,) * 2, dtype)
        return self

    def forward(self, image: Float[Tensor, "b c y x"]) -> Float[Tensor, "b n"]:
        """Class logits of a batch of normalised images; of a model without a classifier its features."""
        return self.head(self.features(image))

    def features(self, image: Float[Tensor, "b c y x"]) -> Float[Tensor, "b e"]:
        """What the classifier reads."""
        grid = self.grid(image)
        x = self.stem(image).flatten(2).transpose(1, 2)
        x = x.contiguous()  # copies after the "conv" stem alone; or every sum below keeps channels apart in memory
        if self.has_positions:
            side = self.config.grid_size
            place = resample_positions(self.pos_embed, (side, side), grid, self.config.prefix)
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + place
        for block in self.blocks:
            x = block(x, grid)
        pooling, prefix = self.config.pooling, self.config.prefix
        if pooling == "mean_norm":
            return self.norm(x[:, prefix:].mean(1))
        x = self.norm(x)
        if pooling == "token":
            return x[:, 0]
        mean = x[:, prefix:].mean(1)
        return mean if pooling == "mean" else torch.cat([x[:, 0], mean], 1)


def seeded_model(config: ModelConfig, seed: int) -> VisionModel:
    """A model whose weights are drawn by `seed` alone, whatever was drawn before; the random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VisionModel(config)


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
