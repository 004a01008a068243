"""The workbench for decoders: where position biases look, at a target too, what offsets are worth, and few of them."""

from importlib import import_module
from pathlib import Path
from typing import Literal

from analyses.command import report, report_folder


def command(
    what: Literal["maps", "weights", "knockout", "prune"],
    checkpoint: Path,
    target: int | None = None,
    windows: int = 200,
    split: Literal["val", "test"] = "test",
    data: str | None = None,
    root: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: Path | None = None,
) -> None:
    """Look at a decoder's position biases by offset, at its weights for one target, knock offsets out, or prune to few.

    Args:
        what: "maps" has w by layer and offset, "weights" what one target reads from each source of real sequences,
            "knockout" the bits that offsets are worth, "prune" the bits that few offsets a layer keep, with parity.
        checkpoint: An AFT-local or AFT-full decoder: its folder, or the name of one that ships or was trained.
        target: Position that "weights" looks from; three quarters into the sequence if left out.
        windows: Images or windows of text that "weights", "knockout" and "prune" read.
        split: val or test.
        data: Data in place of the checkpoint's own.
        root: Folder of downloaded data; data/ if left out.
        seed: Of random offsets.
        device: cpu, cuda or cuda:N.
        out: Folder for the JSON and figures; reports/NAME if left out.
    """
    module = import_module(f"analyses.decoders.{what}")
    result = module.of_checkpoint(
        checkpoint, target=target, windows=windows, split=split, data=data, root=root, seed=seed, device=device
    )
    report(result, out or report_folder(checkpoint))
