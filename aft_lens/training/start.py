"""The first weights of a run from a checkpoint."""

from pathlib import Path

from aft_lens.checkpoint import load_checkpoint, load_decoder, weight_differences
from aft_lens.layers.position_embedding import resample_positions
from aft_lens.models import Decoder, DecoderConfig, ModelConfig, VisionModel, seeded_model


def start_model(path: Path | str, config: ModelConfig, *, seed: int = 0) -> VisionModel:
    """A model of `config` with the weights of a checkpoint, to start training from.

    A ViT's position embeddings are interpolated to `config.img_size`, an AFT-conv takes any size as it is; with other
    `num_classes` the head starts at random, drawn by `seed`, which the model's `head` alone can do. Raises ValueError,
    naming them, if other weights differ in shape, and as `load_checkpoint` does.
    """
    loaded = load_checkpoint(path)
    model = seeded_model(config, seed)
    own, given = model.state_dict(), dict(loaded.model.state_dict())
    if config.mixer == loaded.config.mixer and "pos_embed" in given and config.traits.any_size:
        before, after = loaded.config.grid_size, config.grid_size
        given["pos_embed"] = resample_positions(given["pos_embed"], (before, before), (after, after))
    if config.num_classes != loaded.config.num_classes:
        given |= {name: tensor for name, tensor in own.items() if name.startswith("head.")}
    wrong = weight_differences(own, given)
    if wrong and config.mixer != loaded.config.mixer:
        raise ValueError(
            f"start {path} mixes with {loaded.config.mixer}, the recipe with {config.mixer}; choose another recipe, or "
            "make an AFT-conv of a ViT by `aft-lens transfer`"
        )
    if wrong:
        more = f"\n  and {len(wrong) - 6} more" if len(wrong) > 6 else ""
        raise ValueError(
            f"start {path} does not fit the model that the recipe expects; give its --model fields (config.yaml has "
            "them):\n  " + "\n  ".join(wrong[:6]) + more
        )
    model.load_state_dict(given)
    return model


def start_decoder(path: Path | str, config: DecoderConfig) -> Decoder:
    """A decoder of `config` with the weights of a checkpoint, to start training from.

    Raises ValueError, naming them, if weights differ in shape, and as `load_decoder` does.
    """
    given, model = load_decoder(path).model.state_dict(), Decoder(config)
    if wrong := weight_differences(model.state_dict(), given):
        raise ValueError(
            f"start {path} does not fit the model that the recipe expects; give its --model fields (config.yaml has "
            "them):\n  " + "\n  ".join(wrong[:6])
        )
    model.load_state_dict(given)
    return model
