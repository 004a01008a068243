"""`aft-lens evaluate`: accuracy and loss of classifiers, bits a symbol of decoders."""

import json
from dataclasses import asdict
from typing import Literal

from aft_lens.checkpoint import Checkpoint, DecoderCheckpoint, load_any
from aft_lens.data import load_data, representative, some
from aft_lens.data.sequences import load_sequences
from aft_lens.training.bits import Bits, measure_bits
from aft_lens.training.evaluation import Evaluation, evaluate


def command(
    checkpoints: list[str],
    data: str | None = None,
    root: str | None = None,
    split: Literal["train", "val", "test"] = "test",
    images: int | None = None,
    device: str = "cpu",
    confusion: bool = False,
    context: int | None = None,
    json: bool = False,
) -> None:
    """Print accuracy and loss of checkpoints with 95 % intervals, and accuracy by class; of decoders, bits a symbol.

    Args:
        checkpoints: Models' folders, or names of those that ship or were trained, one or more.
        data: Data set; the one that each model was trained on if left out.
        root: Folder of downloaded data; data/ if left out.
        split: train, val or test.
        images: Images at most, a fixed draw over the classes; all of the split if left out. Of a decoder's, the first;
            of text, windows.
        device: cpu, cuda or cuda:N.
        confusion: Print how many images of each class (rows) were taken for each (columns), too.
        context: Symbols that a decoder of text reads before each it predicts, at least; half its length by default.
        json: Print JSON in place of text: a list with an object for each checkpoint.
    """
    if images is not None and images < 1:
        raise ValueError(f"images must be 1 or more, got {images}")
    records = []
    for number, name in enumerate(checkpoints):
        loaded = load_any(name, device)
        if isinstance(loaded, DecoderCheckpoint):
            bits, source, unit = _decoded(loaded, data, root, split, images, device, context)
            if json:
                records.append(_record(name, source, split, unit, bits))
            else:
                print("\n" * (number > 0) + "\n".join(_lines(name, source, split, unit, bits)))
            continue
        found, source = _evaluated(loaded, data, root, split, images, device)
        if json:
            records.append({"checkpoint": name, "data": source, "split": split, **asdict(found)})
            continue
        print("\n" * (number > 0) + f"{name} on {source} ({split}, {found.images} images; intervals 95 %)")
        print("\n".join([*found.lines(), *found.class_lines()]))
        if confusion:
            print("\n".join(_matrix(found)))
    if json:
        print(_dumped(records))


def _evaluated(
    loaded: Checkpoint, data: str | None, root: str | None, split: str, images: int | None, device: str
) -> tuple[Evaluation, str]:
    """A checkpoint's evaluation, and the data set that it is on."""
    name = data or loaded.data["name"]
    source = load_data(name, root=root, img_size=loaded.data["img_size"])
    source.check_fits(loaded.data)
    part = getattr(source, split)
    chosen = part if images is None else some(part, representative(part, images))
    return evaluate(loaded.model, chosen, source.classes, device=device, progress=True), name


def _decoded(
    loaded: DecoderCheckpoint,
    data: str | None,
    root: str | None,
    split: str,
    windows: int | None,
    device: str,
    context: int | None,
) -> tuple[Bits, str, str]:
    """A decoder's bits, the data that they are of, and what a symbol is called."""
    name = data or loaded.data["name"]
    source = load_sequences(name, root=root, length=loaded.config.length)
    source.check_fits(loaded.data)
    least = context or (1 if source.grid else max(1, source.length // 2))
    found = measure_bits(
        loaded.model, getattr(source, split), context=least, limit=windows, device=device, progress=True
    )
    return found, name, source.unit


def _lines(name: str, source: str, split: str, unit: str, bits: Bits) -> list[str]:
    """Bits a symbol with their interval and context, as text."""
    low, high = bits.interval
    return [
        f"{name} on {source} ({split}, {bits.symbols:,} symbols; interval 95 %)",
        f"bits/{unit}  {bits.mean:.4f}  [{low:.4f}, {high:.4f}]",
        bits.context,
    ]


def _record(name: str, source: str, split: str, unit: str, bits: Bits) -> dict[str, object]:
    """The same for JSON."""
    return {"checkpoint": name, "data": source, "split": split, "unit": unit, "symbols": bits.symbols,
            "bits": bits.mean, "interval": bits.interval, "context": bits.context}  # fmt: skip


def _matrix(found: Evaluation) -> list[str]:
    """The confusion matrix as text, predicted classes by their number."""
    width = max(5, *(len(str(count)) + 1 for row in found.confusion for count in row))
    head = " " * 23 + "".join(f"{number:>{width}}" for number in range(len(found.confusion)))
    names = [f"  {number:>3} {name[:16]:<16} " for number, (name, _, _) in enumerate(found.by_class)]
    rows = [name + "".join(f"{count:>{width}}" for count in row) for name, row in zip(names, found.confusion)]
    return ["class (row) taken for (column)", head, *rows]


def _dumped(records: list[dict[str, object]]) -> str:
    """Records as JSON, NaN (a class without images) as null."""
    return json.dumps(_finite(records), indent=1)


def _finite(value: object) -> object:
    """The value with null for NaN."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if value != value else value
