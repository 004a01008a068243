"""The checkpoint: a folder of safetensors, YAML, CSV and Markdown that loads without unpickling anything."""

import csv
import hashlib
import io
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

import aft_lens
from aft_lens.device import usable_device
from aft_lens.errors import InputError
from aft_lens.files import CONFIG, METRICS, recovered, recovered_of, steady, whole_folder, write_whole
from aft_lens.models import Config, Decoder, DecoderConfig, Model, ModelConfig, VisionModel, build_model, kind_of
from aft_lens.record import Record, read_record
from aft_lens.text_files import read_json, read_table
from aft_lens.weights import Entry, differences, read_header, read_tensors, write_tensors

WEIGHTS, CARD, SNAPSHOTS = "model.safetensors", "card.md", "snapshots"
FIRST = "start.safetensors"
"""Of the snapshots' folder, where the position biases started."""
SHIPPED = next(
    (
        path
        for path in (Path(__file__).with_name("checkpoints"), Path(__file__).parents[1] / "checkpoints")
        if path.is_dir()
    ),
    Path(__file__).with_name("checkpoints"),
)
"""Checkpoints that come along, found by their names: a wheel's own, or those of the source tree."""
ROOTS = (Path("checkpoints"), Path("runs"))
"""Below the folder one stands in: where training keeps its runs, found by their names, too."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: the model in evaluation mode and what it was trained from."""

    path: Path
    model: VisionModel
    config: ModelConfig
    data: dict[str, Any]
    """Name, classes, mean, std, in_chans and img_size of the data set."""
    recipe: dict[str, Any]
    seed: int

    def save(self, path: Path | str, model: VisionModel | None = None) -> Path:
        """Write the model as it is now, or one made from it (pruned, edited), as a checkpoint; return its path.

        Raises FileExistsError if there is something at `path`.
        """
        if Path(path).exists():
            raise FileExistsError(f"{path} exists; remove it or choose another path")
        return save_checkpoint(
            path, self.model if model is None else model, data=self.data, recipe=self.recipe, seed=self.seed,
            metrics=[], start=str(self.path),
        )  # fmt: skip

    def __repr__(self) -> str:
        """A line on the model, in place of all its modules."""
        return _in_a_line(self.path, self.model, self.data)


@dataclass(frozen=True)
class DecoderCheckpoint:
    """A loaded decoder in evaluation mode and what it was trained from."""

    path: Path
    model: Decoder
    config: DecoderConfig
    data: dict[str, Any]
    """Name, vocab_size, length, grid and unit of the sequences."""
    recipe: dict[str, Any]
    seed: int

    def __repr__(self) -> str:
        """A line on the model, in place of all its modules."""
        return _in_a_line(self.path, self.model, self.data)


def _in_a_line(path: Path, model: Model, data: Mapping[str, Any]) -> str:
    config, weights = model.config, sum(parameter.numel() for parameter in model.parameters())
    name = taken_as(path)
    return (
        f"{name}: {config.mixer}, {config.depth} layers x {config.num_heads} heads, width {config.embed_dim}, "
        f"{weights:,} weights, data {data.get('name', 'unknown')}"
    )


def save_checkpoint(
    path: Path | str,
    model: Model,
    *,
    data: Mapping[str, Any],
    recipe: Mapping[str, Any],
    seed: int,
    metrics: Sequence[Mapping[str, float]],
    snapshots: Mapping[int, Mapping[str, Tensor]] | None = None,
    first: Mapping[str, Tensor] | None = None,
    card: str | None = None,
    start: str | None = None,
) -> Path:
    """Write a checkpoint folder and return its path.

    `metrics` has one row an epoch; `snapshots` maps an epoch to position biases by name, `first` has where they
    started (`PositionBias.direction` before any step), `start` says where the first weights are from. A killed run
    leaves the old checkpoint whole.
    """
    path = Path(path)
    kind = kind_of(model.config)
    record = {
        **({} if kind == "vision" else {"kind": kind}),
        "model": asdict(model.config),
        "data": dict(data),
        "recipe": dict(recipe),
        "seed": seed,
        **({} if start is None else {"start": start}),
        "versions": versions(),
        "commit": commit(),
    }
    with whole_folder(path) as folder:
        record["weights"] = write_tensors(model.state_dict(), folder / WEIGHTS)
        texts = {CONFIG: yaml.dump(record, Dumper=_Plain, sort_keys=False, allow_unicode=True)}
        texts |= {METRICS: _table(metrics), CARD: card or _card(path.name, record, metrics)}
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="")
        for epoch, biases in (snapshots or {}).items():
            write_tensors(biases, folder / SNAPSHOTS / f"{epoch:04d}.safetensors")
        if first:
            write_tensors(first, folder / SNAPSHOTS / FIRST)
    return path


def load_checkpoint(path: Path | str, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint folder, or a shipped or trained model by its name, and return it in evaluation mode.

    Nothing is allocated before config.yaml is checked and the weights' list of tensors fits it. Raises
    FileNotFoundError if there is no such checkpoint, with the nearest name, or a part of it is missing, and InputError,
    a ValueError, if the configuration has unknown fields or values, or the weights are damaged, not finite or differ
    from it, naming each differing key and both shapes.
    """
    found = load_any(path, device)
    if not isinstance(found, Checkpoint):
        raise InputError(
            f"checkpoint {found.path} is a decoder, which this does not take; `aft-lens evaluate`, `sample`, "
            "`complete` and `decoder` do, and load_decoder from Python"
        )
    return found


def load_decoder(path: Path | str, device: torch.device | str = "cpu") -> DecoderCheckpoint:
    """Read the checkpoint folder of a decoder, or a shipped or trained one by its name; errors as `load_checkpoint`."""
    found = load_any(path, device)
    if not isinstance(found, DecoderCheckpoint):
        raise InputError(f"checkpoint {found.path} is a vision model, which this does not take; give a decoder")
    return found


def load_any(path: Path | str, device: torch.device | str = "cpu") -> Checkpoint | DecoderCheckpoint:
    """Read a checkpoint of either kind; errors as `load_checkpoint`."""
    place, named = usable_device(device), checkpoint_folder(path)
    record, model = steady(named, lambda folder: _loaded(named, folder, place))
    if isinstance(model, VisionModel):
        return Checkpoint(named, model, model.config, record.data, record.recipe, record.seed)
    return DecoderCheckpoint(named, model, model.config, record.data, record.recipe, record.seed)


def _loaded(path: Path, folder: Path, device: torch.device) -> tuple[Record, Model]:
    """The checkpoint `path`, whose files are in `folder`."""
    if not folder.exists():
        raise FileNotFoundError(_unknown(path))
    for part in (WEIGHTS, CONFIG):
        if not (folder / part).is_file():
            raise FileNotFoundError(f"checkpoint {path} has no {part}; {_instead(folder)}")
    record = read_record(folder)
    header = read_header(folder / WEIGHTS)
    wrong = _misfits(record.model, header)
    if wrong:
        raise InputError(f"checkpoint {path}: weights do not fit {CONFIG}:\n  " + "\n  ".join(wrong))
    state = read_tensors(folder / WEIGHTS, digest=record.digest)
    broken = [name for name, tensor in state.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise InputError(
            f"checkpoint {path}: weights that are NaN or infinite in {', '.join(broken[:3])}: its training diverged, "
            "or the file is damaged; train or copy it again"
        )
    model = build_model(record.model)
    model.load_state_dict(state)
    model.to(device).eval()
    return record, model


def _instead(folder: Path) -> str:
    """What to do about a folder that is no checkpoint of ours."""
    if (folder / "adapter_config.json").is_file():
        return "it holds an adapter (LoRA) of peft; merge it into its model, save the whole, and give that as hf:PATH"
    if not (folder / "config.json").is_file():
        return f"these have: {', '.join(checkpoint_names()) or 'none'} (`aft-lens list` says more)"
    word = "timm:local-dir:" if "architecture" in read_json(folder / "config.json") else "hf:"
    return f"it is another library's: give it as {word}{folder}, to a command that reads such models"


def _misfits(config: Config, header: Mapping[str, Entry]) -> list[str]:
    """What differs between a configuration's weights and a file's, nothing allocated for either."""
    blocks = {name.split(".")[1] for name in header if name.startswith("blocks.")}
    if len(blocks) != config.depth:
        return [f"depth is {config.depth}, the weights have {len(blocks)} blocks"]
    places = _places(config)  # in the weights, by which all that grows with them is bounded
    found = header.get("pos_embed", Entry((), "")).shape
    if places and found != places:
        return [f"shape of pos_embed: expected {places}, found {found}"]
    with torch.device("meta"):
        expected = build_model(config).state_dict()
    return differences({name: Entry.of(tensor) for name, tensor in expected.items()}, header)


def _places(config: Config) -> tuple[int, ...]:
    """Shape of the position embedding; empty where a model has none."""
    if isinstance(config, DecoderConfig):
        return 1, config.length, config.embed_dim
    return () if config.traits.pooled else (1, config.grid_size**2 + config.prefix, config.embed_dim)


def checkpoint_folder(name: Path | str) -> Path:
    """The folder `name`, or, where there is none, that of the checkpoint which is called so: shipped, then trained."""
    path = Path(name)
    if recovered(path).exists() or path != Path(path.name):
        return path
    named = (root / path.name for root in (SHIPPED, *ROOTS))
    return next((folder for folder in named if recovered(folder).is_dir()), path)


def taken_as(path: Path | str) -> str:
    """How commands take a checkpoint from anywhere: one that ships by its name, any other by its folder."""
    return Path(path).name if Path(path).parent == SHIPPED else str(path)


def checkpoint_names() -> list[str]:
    """Names that `checkpoint_folder` knows: of the checkpoints that ship, and of those right below `ROOTS`."""
    folders = (folder for root in (SHIPPED, *ROOTS) for folder in root.glob("*") if (folder / CONFIG).is_file())
    return sorted({recovered_of(folder).name for folder in folders})


def _unknown(path: Path) -> str:
    """What to do about a checkpoint that is not there."""
    names = checkpoint_names()
    near = get_close_matches(path.name, names, n=1)
    meant = f"; did you mean {near[0]}?" if near else "."
    return (
        f"there is no checkpoint {str(path)!r}{meant} Names that are known here: {', '.join(names) or 'none'}; others "
        "are given by their folder (`aft-lens list` says more)"
    )


def list_checkpoints(root: Path | str) -> list[Path]:
    """Every checkpoint folder below `root`, in order; an absent root has none.

    One that a killed process left beside its place (see `recovered`) is listed by its place.
    """
    found = {recovered_of(file.parent) for file in Path(root).rglob(CONFIG) if (file.parent / WEIGHTS).is_file()}
    return sorted(path for path in found if not path.name.startswith("."))


def read_metrics(path: Path | str) -> list[dict[str, float]]:
    """Rows of metrics.csv, one an epoch; blank cells are left out. InputError on a cell that is no number."""
    _, rows = steady(path, lambda folder: read_table(folder / METRICS))
    try:
        return [{key: float(cell) for key, cell in row.items() if cell} for row in rows]
    except ValueError as error:
        raise InputError(f"{Path(path) / METRICS}: {error}; restore the file") from error


def note_test_accuracy(path: Path | str, accuracy: float, images: int) -> None:
    """Add an accuracy from 0 to 1 on so many test images to a checkpoint's metrics, in their last row, and card."""
    path = Path(path)
    rows = read_metrics(path)
    rows[-1]["test_accuracy"] = accuracy
    write_whole(path / METRICS, _table(rows))
    with (path / CARD).open("a", encoding="utf-8") as card:
        card.write(f"- test_accuracy: {accuracy:.4f} on {images} images\n")


def held_out_accuracy(record: Record, rows: Sequence[Mapping[str, float]]) -> float | None:
    """Accuracy, 0 to 1, on images that a run has not trained on, as its metrics last note it; None where they do not.

    That is its test_accuracy, or its val_accuracy unless its recipe trained on the validation images as well.
    """
    held_out = record.recipe.get("data", {}).get("held_out", True)
    names = ("test_accuracy", "val_accuracy") if held_out else ("test_accuracy",)
    return next((row[name] for name in names for row in reversed(rows) if name in row), None)


def read_config(path: Path | str) -> Record:
    """What a checkpoint's config.yaml says, no weights read; errors as in `read_record`."""
    return steady(path, read_record)


def read_snapshots(path: Path | str) -> dict[int, dict[str, Tensor]]:
    """Position biases by epoch and name; empty where the run kept none."""

    def read(folder: Path) -> dict[int, dict[str, Tensor]]:
        files = sorted((folder / SNAPSHOTS).glob("[0-9]*.safetensors"))
        return {int(file.stem): read_tensors(file) for file in files if file.stem.isdecimal()}

    return steady(path, read)


def read_first(path: Path | str) -> dict[str, Tensor]:
    """Where each position bias started, by name: its direction before any step; empty where the run kept none."""
    file = recovered(path) / SNAPSHOTS / FIRST
    return read_tensors(file) if file.is_file() else {}


def revision(path: Path | str) -> str:
    """A short hash of the weights and configuration, to key caches by content."""

    def read(folder: Path) -> str:
        digest = hashlib.sha256()
        for part in (WEIGHTS, CONFIG):
            digest.update((folder / part).read_bytes())
        return digest.hexdigest()[:12]

    return steady(path, read)


def versions() -> dict[str, str]:
    """Versions a result depends on."""
    return {
        "aft_lens": aft_lens.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": version("torchvision"),
    }


def commit() -> str:
    """The source's git commit, or "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def weight_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """One line for every key that is missing from `found`, unexpected in it or of another shape or type."""
    return differences(*({name: Entry.of(tensor) for name, tensor in state.items()} for state in (expected, found)))


def _table(rows: Sequence[Mapping[str, float]]) -> str:
    """Rows as CSV, a column for every name in any of them."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns)
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


class _Plain(yaml.SafeDumper):
    """Writes a value that stands twice out twice: no anchors are read again."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


def _card(name: str, record: Mapping[str, Any], metrics: Sequence[Mapping[str, float]]) -> str:
    """A short model card from what the run recorded."""
    model, last = record["model"], metrics[-1] if metrics else {}
    lines = [
        f"# {name}",
        "",
        f"- mixer: {model['mixer']}, depth {model['depth']}, width {model['embed_dim']}, heads {model['num_heads']}",
        f"- data: {record['data'].get('name', 'unknown')}",
        f"- seed: {record['seed']}",
        *([f"- start: {record['start']}"] if "start" in record else []),
        *(f"- {key}: {value:.4g}" for key, value in last.items()),
    ]
    return "\n".join(lines) + "\n"
