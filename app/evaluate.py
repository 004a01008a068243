"""`aft-lens evaluate`: accuracy and loss of a checkpoint."""

from pathlib import Path
from typing import Literal

from aft_lens.checkpoint import load_checkpoint
from aft_lens.data import load_data
from aft_lens.training.evaluate import evaluate


def command(
    checkpoint: Path,
    data: str | None = None,
    root: str | None = None,
    split: Literal["train", "val", "test"] = "test",
    device: str = "cpu",
) -> None:
    """Print accuracy and loss with 95 % intervals, and accuracy by class.

    Args:
        checkpoint: A checkpoint folder, or the name of one that ships.
        data: Data set; the one that the model was trained on if left out.
        root: Folder of downloaded data; data/ if left out.
        split: train, val or test.
        device: cpu, cuda or cuda:N.
    """
    loaded = load_checkpoint(checkpoint, device)
    name = data or loaded.data["name"]
    source = load_data(name, root=root, img_size=loaded.data["img_size"])
    source.check_fits(loaded.data)
    result = evaluate(loaded.model, getattr(source, split), source.classes, device=device)
    low, high = result.accuracy_interval
    print(f"{checkpoint} on {name} ({split}, {result.images} images; intervals 95 %)")
    print(f"accuracy  {100 * result.accuracy:6.2f} %  [{100 * low:.2f}, {100 * high:.2f}]")
    print(f"loss      {result.loss:6.4f}    [{result.loss_interval[0]:.4f}, {result.loss_interval[1]:.4f}]")
    for label, count, accuracy in result.by_class:
        print(f"  {label:<20} {100 * accuracy:6.2f} %  of {count}")
