"""The command and the Python lines that make what pages show; a function for each kind of job.

`Lines` are (words of the command, Python). A kind that has no command of its own has no words.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aft_lens.checkpoint import CONFIG, taken_as

Lines = tuple[tuple[str, ...], str]
NONE: Lines = ((), "")
READER = "from analyses.explain import open_reader"
CALIBRATION = 512
"""Images that a measured criterion is computed on; of the validation split, never tested on."""


def _own(source: str) -> bool:
    return (Path(source) / CONFIG).is_file()


def _python(*lines: str, imports: Sequence[str] = ()) -> str:
    return "\n".join(["import aft_lens as aft", *imports, "", *lines])


def _loaded(source: str) -> list[str]:
    return [
        f"loaded = aft.load({taken_as(source)!r})",
        'data = aft.load_data(loaded.data["name"], img_size=loaded.config.img_size)',
    ]


def _batches(source: str, data: str, images: int, split: str = "test") -> list[str]:
    """`model` and batches by the name of the split."""
    if _own(source):
        return [*_loaded(source), "model = loaded.model", f"{split} = aft.batches(data, {images}, {split!r})"]
    read = f"aft.image_batches(model.preprocessing, {data!r}, images={images}, split={split!r})"
    return [f"model = aft.open_vit({source!r})", f"{split} = {read}"]


def _image(source: str, data: str, image: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Lines that make `model` and `image`, and their imports; an upload is a file of the reader's own."""
    if not _own(source):
        lines = [f"model = aft.open_vit({source!r})"]
        if "upload" in image:
            read = 'image = model.preprocessing.transform()(read_image("IMAGE").convert("RGB"))'
            return [*lines, read], ["from aft_lens.data import read_image"]
        number = int(image["sample"])
        return [*lines, f"image = prepare(aft.load_data({data!r}).test, model.preprocessing)[{number}][0]"], [
            "from aft_lens.extraction.preprocessing import prepare"
        ]
    if "upload" in image:
        read = f'image = model_input(read_image("IMAGE"), loaded.data, invert={bool(image.get("invert"))})'
        lines = [f"loaded = aft.load({taken_as(source)!r})", "model = loaded.model", read]
        return lines, ["from aft_lens.data import model_input, read_image"]
    return [*_loaded(source), "model = loaded.model", f"image, _ = data.test[{int(image['sample'])}]"], []


def _reader(source: str) -> str:
    return f"open_reader({taken_as(source)!r})"


def _command(name: str, *words: object, data: str = "") -> tuple[str, ...]:
    return ("aft-lens", name, *map(str, words), *(("--data", data) if data else ()))


def bias(source: str) -> Lines:
    """Position biases."""
    name = taken_as(source)
    lines = [f"loaded = aft.load({name!r})", f"result = aft.bias_maps(loaded.model, {name!r}, read_first(loaded.path))"]
    return _command("bias", name), _python(*lines, imports=["from aft_lens.checkpoint import read_first"])


def attention(source: str, data: str, images: int) -> Lines:
    """Averaged attention."""
    lines = [*_batches(source, data, images), "result = aft.attention_maps(model, test)"]
    return _command("attention", taken_as(source), "--images", images, data=data), _python(*lines)


def keys(source: str, image: dict[str, Any]) -> Lines:
    """Keys of an image."""
    lines, imports = _image(source, "", image)
    words = ("--image", "IMAGE") if "upload" in image else ("--sample", int(image["sample"]))
    command = () if image.get("invert") else _command("keys", taken_as(source), *words)
    return command, _python(*lines, "result = aft.key_maps(model, image)", imports=imports)


def attribution(source: str, image: dict[str, Any]) -> Lines:
    """Integrated gradients; its file is among those of the keys."""
    command, python = keys(source, image)
    return command, python + ".attributed"


def attend(source: str, data: str, image: dict[str, Any], target: list[int] | None) -> Lines:
    """What a target of an image reads; the command takes files alone."""
    lines, imports = _image(source, data, image)
    place = None if target is None else tuple(target)
    command: tuple[str, ...] = ()
    if "upload" in image and not image.get("invert"):
        at = () if place is None else ("--target", f"[{place[0]},{place[1]}]")
        command = _command("attend", taken_as(source), "IMAGE", *at)
    imports = [*imports, READER]
    return command, _python(*lines, f"result = aft.attend({_reader(source)}, image, {place})", imports=imports)


def evaluate(source: str, images: int) -> Lines:
    """Accuracy."""
    lines = [*_batches(source, "", images)[:-1], f"first = Subset(data.test, range(min({images}, len(data.test))))",
             "result = aft.evaluate(model, first, [*data.classes])"]  # fmt: skip
    command = _command("evaluate", taken_as(source), "--images", images)
    return command, _python(*lines, imports=["from torch.utils.data import Subset"])


def curve(source: str, criteria: Sequence[str], keeps: Sequence[int], images: int) -> Lines:
    """Accuracy against k: Python alone, as `aft-lens prune` makes one rung."""
    lines = [
        *_batches(source, "", images), f'held = aft.batches(data, {CALIBRATION}, "val")',
        f"result = prune_curve(model, test, held, criteria={[*criteria]}, keeps={[*keeps]})",
    ]  # fmt: skip
    return (), _python(*lines, imports=["from analyses.pruning.curve import prune_curve"])


def prune(source: str, criterion: str, keep: int, images: int) -> Lines:
    """One rung."""
    lines = [
        *_batches(source, "", images), f'held = aft.batches(data, {CALIBRATION}, "val")',
        f"result = aft.prune(model, test, {keep}, criterion={criterion!r}, calibration=held, batch_sizes=())",
    ]  # fmt: skip
    return _command("prune", taken_as(source), "--keep", keep, "--criterion", criterion), _python(*lines)


def knockout(source: str, data: str, images: int, layer: int, head: int | None, offset: list[int] | None) -> Lines:
    """A selection taken out: Python alone, as `aft-lens knockout` takes every one out in turn."""
    place = None if offset is None else tuple(offset)
    lines = [*_batches(source, data, images),
             f"result = worth({_reader(source)}, test, Selection({layer}, {head}, {place}))"]  # fmt: skip
    return (), _python(*lines, imports=["from analyses.knockout.selection import Selection, worth", READER])


def costs(source: str, images: int) -> Lines:
    """Every head taken out."""
    lines = [*_batches(source, "", images), 'result = knock_out(model, test, by="head")']
    command = _command("knockout", taken_as(source), "--by", "head", "--images", images)
    return command, _python(*lines, imports=["from analyses.knockout import knock_out"])


def latency(first: str, second: str, batch: int) -> Lines:
    """Two models timed in turn."""
    pair = [taken_as(first), taken_as(second)]
    lines = [f"result = time_pair([noise_input(name, {batch}) for name in {pair}])"]
    python = "\n".join(["from analyses.latency import noise_input, time_pair", "", *lines])
    return _command("latency", *pair, "--batch", batch), python


def locality(sources: Sequence[str], data: str, images: int) -> Lines:
    """How local heads are, own models beside random weights."""
    shown = [(taken_as(source), control) for source in sources for control in (False, True)
             if not control or _own(source)]  # fmt: skip
    read = f"read_offset_maps(name, data={data or None!r}, images={images}, resamples=50, control=control)"
    lines = [
        f"maps = [{read} for name, control in {shown}]",
        'result = Locality(tuple(map(head_locality, maps)), 1.5, "apart", False, 50, 0)',
    ]
    imports = ["from analyses.locality import Locality", "from analyses.locality.metrics import head_locality",
               "from analyses.offset_maps import read_offset_maps"]  # fmt: skip
    command = _command("locality", *map(taken_as, sources), "--images", images, "--resamples", 50, data=data)
    return command, "\n".join([*imports, "", *lines])


def match(first: str, second: str, data: str, images: int, draws: int, measures: Sequence[str]) -> Lines:
    """Heads of two models paired."""
    pair = [taken_as(first), taken_as(second)]
    lines = [
        f"maps = [read_offset_maps(name, data={data or None!r}, images={images}) for name in {pair}]",
        "frame = common_frame(*maps)",
        "heads = [shaped_heads(one, frame) for one in maps]",
        f"found = [match(*heads, measure, draws={draws}) for measure in {[*measures]}]",
        'result = Match(*heads, frame, "crop", tuple(found), 0)',
    ]
    imports = ["from analyses.match import Match", "from analyses.match.heads import common_frame, shaped_heads",
               "from analyses.match.matching import match",
               "from analyses.offset_maps import read_offset_maps"]  # fmt: skip
    command = _command("match", *pair, "--images", images, "--draws", draws, data=data)
    return command, "\n".join([*imports, "", *lines])


def show(name: str, source: str) -> Lines:
    """What an analysis with a page shows of a checkpoint."""
    python = f"from app.commands import command_module\n\nresult = command_module({name!r}).show({taken_as(source)!r})"
    return _command(name, taken_as(source)), python


def explain(source: str, data: str, images: int) -> Lines:
    """Whether position explains heads."""
    lines = [
        *_batches(source, data, images), *_batches(source, data, images, "train")[-1:],
        f"reader = {_reader(source)}",
        f"plan = plan_for(reader, single=False, data={data!r})" if data else
        'plan = plan_for(reader, single=False, data=loaded.data["name"])',
        "result = explain(reader, train, test, plan=plan)",
    ]  # fmt: skip
    command = _command("explain", taken_as(source), "--images", images, "--single", "false", data=data)
    return command, _python(*lines, imports=["from analyses.explain import explain, open_reader, plan_for"])


def learned(source: str) -> Lines:
    """How much training made."""
    line = f"result = LearnedEvidence((evidence(aft.load({taken_as(source)!r}), draws=200),), ())"
    return (), _python(line, imports=["from analyses.learned.evidence import LearnedEvidence, evidence"])


def transfer(source: str, to: str) -> Lines:
    """Which weights an AFT-conv takes from a ViT."""
    name = taken_as(source)
    lines = [f"reader = aft.open_vit({name!r})", f"config, _ = target({to!r}, reader, None)",
             "result = summary(transfer(reader, config))"]  # fmt: skip
    command = _command("transfer", name, "--to", to)
    return command, _python(*lines, imports=["from analyses.transfer import summary, target, transfer"])


def completions(source: str, count: int, keep: float, temperature: float, seed: int) -> Lines:
    """Sequences completed."""
    name = taken_as(source)
    lines = [
        f"loaded = aft.load_decoder({name!r})", "data = load_kept_sequences(loaded.data, loaded.path)",
        f"result = aft.complete(loaded, data, count={count}, keep={keep:g}, sampling=Sampling({temperature:g}), "
        f"seed={seed})",
    ]  # fmt: skip
    imports = ["from aft_lens.data.sequences import load_kept_sequences", "from aft_lens.models import Sampling"]
    command = _command("complete", name, "--keep", f"{keep:g}", "--temperature", f"{temperature:g}", "--seed", seed)
    return command, _python(*lines, imports=imports)


def decoder_biases(source: str) -> Lines:
    """w of a decoder by offset."""
    line = f"result = offset_biases(aft.load_decoder({taken_as(source)!r}))"
    return _command("decoder", taken_as(source)), _python(
        line, imports=["from analyses.decoders.maps import offset_biases"]
    )


def qk(source: str, data: str, images: int) -> Lines:
    """Content and position in the logits of a ViT."""
    lines = [*_batches(source, data, images), "result = qk(model, test)"]
    command = _command("qk", taken_as(source), "--images", images, data=data)
    return command, _python(*lines, imports=["from analyses.qk import qk"])


def field(sources: Sequence[str], data: str, images: int) -> Lines:
    """How far an output token sees."""
    lines = []
    for number, source in enumerate(sources):
        lines += [*_batches(source, data, images), "shares, target = receptive_fields(model, test)",
                  f"field{number} = Field({taken_as(source)!r}, shares, target)"]  # fmt: skip
    fields = ", ".join(f"field{number}" for number in range(len(sources)))
    lines.append(f"result = Fields(({fields},), {images})")
    command = _command("field", *map(taken_as, sources), "--images", images, data=data)
    return command, _python(*lines, imports=["from analyses.field import Field, Fields, receptive_fields"])


def attributions(source: str, images: int) -> Lines:
    """Checks of attributions."""
    lines = [*_batches(source, "", images), "images = torch.cat([each for each, _ in test])",
             "result = check_attributions(model, images, cell=loaded.config.patch_size)"]  # fmt: skip
    command = _command("attribution", taken_as(source), "--images", images)
    return command, _python(*lines, imports=["import torch", "from analyses.attribution import check_attributions"])
