"""Start an AFT-conv from a ViT (Table 8), and write it as a checkpoint that evaluates and trains on."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from aft_lens.checkpoint import load_checkpoint, save_checkpoint
from aft_lens.data import load_data
from aft_lens.extraction import AttentionReader, image_batches, open_source, stream_relative, targets_per_offset
from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.models import ModelConfig, list_models, model_config
from aft_lens.models.transfer import Transfer, from_vit, start_from_relative
from aft_lens.training import list_recipes, read_recipe
from analyses.command import run_module
from analyses.result import Table

IMAGENET_CLASSES = 1000
CLOSE = 1e-3
"""Difference of normalisations, in [0, 1] image units, below which they are the same but for rounding."""


def target(name: str | None, reader: AttentionReader, classes: int | None) -> tuple[ModelConfig, str | None]:
    """The AFT's configuration and, from a recipe, its data set.

    A registered model takes image size and channels of the ViT, and its classes unless `classes` says otherwise; a
    recipe, by name or file, brings its own. Raises ValueError if `name` is neither.
    """
    if name in list_models():
        config = model_config(str(name), in_chans=reader.in_chans, img_size=_side(reader))
        return replace(config, num_classes=classes or _classes(reader) or config.num_classes), None
    if name and (name in list_recipes() or Path(name).is_file()):
        recipe = read_recipe(name)
        return recipe.model, recipe.data.name
    known = [model for model in list_models() if model_config(model).traits.weights == "offset"]
    raise ValueError(f"to must be a recipe or one of {', '.join(known)}, got {name!r}; give --to")


def _side(reader: AttentionReader) -> int:
    rows, columns = reader.image_size
    if rows != columns:
        raise ValueError(f"{reader.source}: images must be square, the ViT takes {rows} x {columns}")
    return rows


def _classes(reader: AttentionReader) -> int | None:
    """Outputs of the ViT's classifier, None where it has none."""
    state = reader.model.state_dict()
    return next((len(tensor) for name, tensor in state.items() if re.search(r"(head|classifier)\.bias$", name)), None)


def _preprocessing(reader: AttentionReader) -> Preprocessing:
    """How the ViT's images must come; ValueError where that is not known."""
    if reader.preprocessing is None:
        raise ValueError(f"{reader.source}: it is not known how its images must come; open it with open_source")
    return reader.preprocessing


def transfer(
    reader: AttentionReader,
    config: ModelConfig,
    *,
    relative_on: str | None = None,
    images: int = 256,
    root: str | None = None,
    seed: int = 0,
) -> Transfer:
    """Start an AFT-conv from a reader's ViT; position biases from its relative attention on a data set's images.

    `relative_on` names the data set, whose first training images are used (`root` has downloaded data); None leaves the
    biases at their own start. What is fresh is drawn with `seed`. Raises as `from_vit`, `start_from_relative` and
    `image_batches` do.
    """
    result = from_vit(reader.model, config, seed=seed)
    if relative_on is not None:
        batches = image_batches(
            _preprocessing(reader), relative_on, images=images, split="train", root=root, device=reader.device
        )
        sums = stream_relative(reader, batches, progress=True)
        start_from_relative(result.model, sums.average(), targets_per_offset(reader.grid))
        words = f"from the ViT's relative attention over {sums.images} training images of {relative_on}"
        result = replace(result, fresh={n: words if ".position_bias." in n else w for n, w in result.fresh.items()})
    return result


def data_record(
    reader: AttentionReader, config: ModelConfig, data: str | None, root: str | None = None
) -> dict[str, Any]:
    """What the checkpoint says of its images: of the data set, of the ViT's own checkpoint, or of its library.

    Raises ValueError if the data set's images have other channels than the model reads.
    """
    if data is not None:
        record = load_data(data, root=root, img_size=config.img_size).record()
        if record["in_chans"] != config.in_chans:
            raise ValueError(
                f"data {data} has {record['in_chans']} channels, the ViT reads {config.in_chans}; choose another --data"
            )
        return record
    if reader.data is not None:
        return {**load_checkpoint(reader.source).data, "img_size": config.img_size}
    way = _preprocessing(reader)
    return {
        "name": "imagenet" if config.num_classes == IMAGENET_CLASSES else "unknown",
        "classes": [str(number) for number in range(config.num_classes)],
        "mean": list(way.mean),
        "std": list(way.std),
        "in_chans": config.in_chans,
        "img_size": config.img_size,
    }


def summary(result: Transfer) -> Table:
    """A table of every module's tensors, blocks together."""
    rows = [(_module(name), " x ".join(map(_module, origins))) for name, origins in result.taken.items()]
    rows += [(_module(name), f"- ({why})") for name, why in result.fresh.items()]
    rows += [("-", f"{_module(name)} (left behind)") for name in result.left]
    lines = [[own, source, str(count)] for (own, source), count in Counter(rows).items()]
    return Table(["AFT-conv", "from the ViT", "tensors"], lines)


def _module(name: str) -> str:
    """The module that a tensor belongs to, the number of its block left open."""
    name = re.sub(r"[._](weight|bias)$", "", name)
    return re.sub(r"(blocks\.|layers?\.|encoder_layer_)\d+", r"\1N", name)


def command(
    source: str,
    to: str | None = None,
    out: Path | None = None,
    pretrained: bool = True,
    biases: Literal["paper", "relative"] = "paper",
    data: str | None = None,
    root: str | None = None,
    images: int = 256,
    device: str = "cpu",
    depth: int | None = None,
    seed: int = 0,
) -> None:
    """Start an AFT-conv from a ViT's weights, print what was taken, and write it as a checkpoint.

    All but the position embedding, the class token, and the query and key projections is taken (Table 8). Train it on
    with `aft-lens train --start`.

    Args:
        source: timm:NAME, torchvision:NAME, hf:NAME_OR_PATH, a ViT's folder, or the name of one that ships or was
            trained.
        to: The AFT-conv: a registered model, e.g. aft_conv_base_25_32, or a recipe.
        out: Folder of the new checkpoint; runs/NAME-to-TARGET if left out.
        pretrained: False takes another library's architecture with random weights, to try things offline.
        biases: paper leaves the position biases fresh; relative makes them from the ViT's relative attention.
        data: Data set of the new checkpoint and of the images for relative biases; the ViT's own if left out.
        root: Folder of downloaded data; data/ if left out.
        images: Training images that relative biases are averaged over.
        device: Where the ViT runs: cpu, cuda or cuda:N.
        depth: Blocks of the AFT-conv, if not those of the target.
        seed: Of what is not taken, and of random weights.
    """
    reader = open_source(source, pretrained=pretrained, device=device, seed=seed)
    classes = None if data is None else len(load_data(data, root=root).classes)
    config, recipe_data = target(to, reader, classes)
    config = config if depth is None else replace(config, depth=depth)
    data = data or recipe_data
    relative_on = data or reader.data
    if biases == "relative" and relative_on is None:
        raise ValueError(f"biases=relative needs images and {source} is of no known data set; give --data")
    path = out or Path("runs") / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', source)}-to-{Path(str(to)).stem}"
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it or choose another --out")
    record = data_record(reader, config, data, root)
    result = transfer(
        reader, config, relative_on=relative_on if biases == "relative" else None, images=images, root=root, seed=seed
    )
    origin = {"source": source, "pretrained": pretrained, "biases": biases}
    if biases == "relative":
        origin |= {"images": images, "images_of": str(relative_on)}
    print(summary(result).text())
    save_checkpoint(
        path, result.model, data=record, recipe={"transfer": origin}, seed=seed, metrics=[],
        card=_card(path.name, to, origin, result),
    )  # fmt: skip
    weights = [sum(result.model.state_dict()[name].numel() for name in part) for part in (result.taken, result.fresh)]
    print(f"wrote {path}: {weights[0]:,} weights from {source}, {weights[1]:,} not")
    way = _preprocessing(reader)
    if any(abs(a - b) > CLOSE for a, b in zip((*way.mean, *way.std), (*record["mean"], *record["std"]))):
        print(
            f"note: {record['name']} comes normalised by mean {record['mean']} and std {record['std']}, the ViT's "
            f"images by {list(way.mean)} and {list(way.std)}"
        )


def _card(name: str, to: str | None, origin: Mapping[str, Any], result: Transfer) -> str:
    """A model card that says where the weights are from."""
    fresh = sorted({_module(part) for part in result.fresh})
    lines = [
        f"# {name}",
        "",
        f"- model: {to}, not trained since",
        *(f"- {key}: {value}" for key, value in origin.items()),
    ]
    return "\n".join([*lines, f"- not from the ViT's weights: {', '.join(fresh)}"]) + "\n"


if __name__ == "__main__":
    run_module("analyses.transfer", command)
