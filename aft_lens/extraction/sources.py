"""Open a ViT by name, or one that is held in memory, whatever library it comes from."""

from pathlib import Path

import torch
from torch import nn

from aft_lens.checkpoint import load_checkpoint
from aft_lens.device import usable_device
from aft_lens.extraction.adapters import ADAPTERS, read_model
from aft_lens.extraction.own import OwnReader
from aft_lens.extraction.preprocessing import Preprocessing
from aft_lens.extraction.reader import AttentionReader
from aft_lens.extraction.request import Request
from aft_lens.extraction.said import SaidImages, said
from aft_lens.models import VisionModel, as_model, conv_layers


def open_source(
    spec: str,
    *,
    pretrained: bool = True,
    grid: tuple[int, int] | None = None,
    prefix: int | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> AttentionReader:
    """Open a ViT and return a reader of its attention, in evaluation mode.

    `spec` is `torchvision:NAME`, `timm:NAME`, `hf:NAME_OR_PATH`, the word of another package's adapter with a name, or
    the folder of a checkpoint of ours. With
    `pretrained=False` the architecture gets random weights from `seed`, as a control. `grid` asks for other patches
    (rows, columns) than the model's own: its library then interpolates the position embeddings. `prefix` says how
    many tokens come before the patches where that is not to be inferred. Both are checked against the model by
    `AttentionReader.verify`. The reader knows the images it takes (`reader.preprocessing`); where a model's files do
    not say it, its name is followed by `,mean=0.5/0.5/0.5,std=0.5` (and `,size=224`, which is checked).

    Raises ValueError on an unknown or unsupported model (and says what was looked for) and on a grid that it cannot
    take, FileNotFoundError where weights are missing or cannot be fetched, and ModuleNotFoundError, naming the extra,
    where the library is not installed.
    """
    if grid is not None and min(grid) < 1:
        raise ValueError(f"grid must have a row and a column or more, got {tuple(grid)}")
    place = usable_device(device)
    spec, images = said(spec) if spec.partition(":")[0] in ADAPTERS else (spec, SaidImages())
    kind, colon, name = spec.partition(":")
    if colon and kind in ADAPTERS:
        build = ADAPTERS[kind].open_model
    elif colon and not Path(spec).exists():
        raise ValueError(f"source {spec!r} is of unknown kind {kind!r}; give one of "
                         f"{', '.join(f'{word}:NAME' for word in ADAPTERS)}, or a checkpoint folder")  # fmt: skip
    else:
        name, build = spec, _open_checkpoint
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = build(Request(spec, name, pretrained, grid, prefix))
    reader.preprocessing = images.over(reader.preprocessing, spec, reader.image_size, reader.in_chans)
    reader.model.to(place).eval().requires_grad_(False)
    return reader


def as_reader(model: nn.Module | AttentionReader) -> AttentionReader:
    """A reader of a ViT that is held in memory: ours, timm's, torchvision's, transformers', or another adapter's.

    A reader is returned as it is. The model stays as it is: the reader sets hooks while it reads. Raises ValueError on
    a model that has no attention to read (AFT-conv layers inside another library's ViT have none), or whose library
    has no adapter, and says what was looked for.
    """
    if isinstance(model, AttentionReader):
        return model
    model = as_model(model)
    if isinstance(model, VisionModel):
        return OwnReader(model)
    if count := len(conv_layers(model)):
        raise ValueError(
            f"{type(model).__name__} mixes with AFT-conv in {count} layers, which have no attention weights; "
            "aft_lens.bias_maps(model) and key_maps(model, image) show where they look, edit(bias=) and edit(key=) "
            "change it"
        )
    return read_model(model)


def _open_checkpoint(request: Request) -> AttentionReader:
    """A checkpoint folder of ours."""
    loaded = load_checkpoint(request.name)
    request.check_prefix(loaded.config.prefix)
    model = loaded.model if request.pretrained else VisionModel(loaded.config)  # drawn by the request's seed
    rows, columns = request.grid or (loaded.config.grid_size, loaded.config.grid_size)
    size = rows * loaded.config.patch_size, columns * loaded.config.patch_size
    preprocessing = Preprocessing.of_record(loaded.data, size)
    return OwnReader(model, request.spec, grid=(rows, columns), preprocessing=preprocessing, data=loaded.data["name"])
