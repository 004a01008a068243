"""The checkpoint: a folder of safetensors, YAML, CSV and Markdown that loads without unpickling anything."""

import csv
import hashlib
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torchvision
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import aft_lens
from aft_lens.device import usable_device
from aft_lens.files import recovered, whole_folder
from aft_lens.models import ModelConfig, VisionModel

WEIGHTS, CONFIG, METRICS, CARD, SNAPSHOTS = (
    "model.safetensors",
    "config.yaml",
    "metrics.csv",
    "card.md",
    "snapshots",
)
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
        config, weights = self.config, sum(parameter.numel() for parameter in self.model.parameters())
        name = self.path.name if self.path.parent == SHIPPED else self.path
        return (
            f"{name}: {config.mixer}, {config.depth} layers x {config.num_heads} heads, width {config.embed_dim}, "
            f"{weights:,} weights, data {self.data.get('name', 'unknown')}"
        )


def save_checkpoint(
    path: Path | str,
    model: VisionModel,
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
    record = {
        "model": asdict(model.config),
        "data": dict(data),
        "recipe": dict(recipe),
        "seed": seed,
        **({} if start is None else {"start": start}),
        "versions": versions(),
        "commit": commit(),
    }
    with whole_folder(path) as folder:
        _save(model.state_dict(), folder / WEIGHTS)
        (folder / CONFIG).write_text(yaml.safe_dump(record, sort_keys=False))
        columns = list(dict.fromkeys(key for row in metrics for key in row))
        with (folder / METRICS).open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(metrics)
        (folder / CARD).write_text(card or _card(path.name, record, metrics))
        for epoch, biases in (snapshots or {}).items():
            (folder / SNAPSHOTS).mkdir(exist_ok=True)
            _save(biases, folder / SNAPSHOTS / f"{epoch:04d}.safetensors")
        if first:
            (folder / SNAPSHOTS).mkdir(exist_ok=True)
            _save(first, folder / SNAPSHOTS / FIRST)
    return path


def load_checkpoint(path: Path | str, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint folder, or a shipped checkpoint by its name, and return its model in evaluation mode.

    Raises FileNotFoundError if a part is missing, and ValueError if the configuration has unknown fields or the
    weights differ from it, naming each differing key and both shapes.
    """
    path = checkpoint_folder(path)
    for part in (WEIGHTS, CONFIG):
        if not (path / part).is_file():
            raise FileNotFoundError(f"checkpoint {path} has no {part}; `aft-lens list` shows the checkpoints there are")
    record = yaml.safe_load((path / CONFIG).read_text())
    if not isinstance(record, dict) or "model" not in record:
        raise ValueError(f"checkpoint {path}: {CONFIG} has no `model`; train it again or restore the file")
    unknown = sorted(set(record["model"]) - {field.name for field in fields(ModelConfig)})
    if unknown:
        raise ValueError(f"checkpoint {path}: {CONFIG} has unknown model fields {unknown}; update aft-lens")
    config = ModelConfig(**record["model"])
    try:
        state = load_file(path / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"checkpoint {path}: {WEIGHTS} is damaged ({error}); train or copy it again") from error
    model = VisionModel(config)
    differences = weight_differences(model.state_dict(), state)
    if differences:
        raise ValueError(f"checkpoint {path}: weights do not fit {CONFIG}:\n  " + "\n  ".join(differences))
    model.load_state_dict(state)
    model.to(usable_device(device)).eval()
    return Checkpoint(path, model, config, record.get("data", {}), record.get("recipe", {}), record.get("seed", 0))


def checkpoint_folder(name: Path | str) -> Path:
    """The folder `name`, or, where there is none, that of the shipped checkpoint which is called so."""
    path = recovered(name)
    shipped = SHIPPED / path.name
    return shipped if not path.exists() and path == Path(path.name) and shipped.is_dir() else path


def list_checkpoints(root: Path | str) -> list[Path]:
    """Every checkpoint folder below `root`, in order; an absent root has none."""
    found = (file.parent for file in Path(root).rglob(CONFIG))
    return sorted(path for path in found if (path / WEIGHTS).is_file() and not path.name.startswith("."))


def read_metrics(path: Path | str) -> list[dict[str, float]]:
    """Rows of metrics.csv, one an epoch; blank cells are left out."""
    with (Path(path) / METRICS).open(newline="") as file:
        return [{key: float(cell) for key, cell in row.items() if cell} for row in csv.DictReader(file)]


def read_snapshots(path: Path | str) -> dict[int, dict[str, Tensor]]:
    """Position biases by epoch and name; empty where the run kept none."""
    files = sorted((Path(path) / SNAPSHOTS).glob("[0-9]*.safetensors"))
    return {int(file.stem): load_file(file) for file in files}


def read_first(path: Path | str) -> dict[str, Tensor]:
    """Where each position bias started, by name: its direction before any step; empty where the run kept none."""
    file = Path(path) / SNAPSHOTS / FIRST
    return load_file(file) if file.is_file() else {}


def revision(path: Path | str) -> str:
    """A short hash of the weights and configuration, to key caches by content."""
    digest = hashlib.sha256()
    for part in (WEIGHTS, CONFIG):
        digest.update((Path(path) / part).read_bytes())
    return digest.hexdigest()[:12]


def versions() -> dict[str, str]:
    """Versions a result depends on."""
    return {
        "aft_lens": aft_lens.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }


def commit() -> str:
    """The source's git commit, or "unknown" outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def weight_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """One line for every key that is missing from `found`, unexpected in it or of another shape."""
    lines = [f"missing: {key} {tuple(expected[key].shape)}" for key in expected if key not in found]
    lines += [f"unexpected: {key} {tuple(found[key].shape)}" for key in found if key not in expected]
    lines += [
        f"shape of {key}: expected {tuple(expected[key].shape)}, found {tuple(found[key].shape)}"
        for key in expected
        if key in found and expected[key].shape != found[key].shape
    ]
    return lines


def _save(tensors: Mapping[str, Tensor], file: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, file)


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
