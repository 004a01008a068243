"""Mutated configs, weights, tables and images: each is read or answered in words, soon, and in little memory."""

import io
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from aft_lens.checkpoint import load_checkpoint, read_config, save_checkpoint
from aft_lens.data import read_image, to_pixels
from aft_lens.errors import answer
from aft_lens.models import create_model
from app.runs import describe, read_rows

CORPUS = Path(__file__).with_name("corpus")
"""Inputs that once went wrong, by kind: each new one joins them."""
SLOW = 5.0
"""Seconds beyond which an input counts as a hang."""
LARGE = 2**20
"""KiB of memory beyond which an input counts as an allocation."""
RECORD = {"name": "digits", "classes": [str(i) for i in range(10)], "mean": [0.3], "std": [0.37], "in_chans": 1,
          "img_size": 8}  # fmt: skip
WORDS = (b"0", b"-1", b"1e999", b"99999999999", b"!!python/object:os.system", b"&a", b"*a", b"[", b"{", b"\x00",
         b"\xff", b"null", b"folder:/", b"'", b"\n", b": ", b"- ")  # fmt: skip


def mutated(draw: random.Random, content: bytes) -> bytes:
    """The bytes with some cut out, put in, turned or doubled."""
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(content) + 1)
        length = draw.choice((0, 1, 2, 8, 64, 512))
        put = draw.choice(
            (b"", draw.choice(WORDS), draw.randbytes(draw.choice((1, 4, 32))), content[place : place + 64])
        )
        content = content[:place] + put + content[place + length :]
    return content


def pictures() -> dict[str, bytes]:
    """An image of each format, some with metadata."""
    noise = Image.effect_noise((24, 20), 60)
    found = {}
    for kind, mode in (("PNG", "RGBA"), ("JPEG", "CMYK"), ("TIFF", "RGB"), ("GIF", "P"), ("WEBP", "RGB"), ("BMP", "L"),
                       ("PPM", "L")):  # fmt: skip
        file, exif = io.BytesIO(), Image.Exif()
        exif[274] = 6
        noise.convert(mode).save(file, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}))
        found[f"image.{kind.lower()}"] = file.getvalue()
    return found


def attack(count: int, folder: Path, seed: int = 0) -> dict[str, dict[str, int]]:
    """Read so many mutated inputs of each kind and count outcomes by kind."""
    draw = random.Random(seed)
    torch.manual_seed(0)
    rows = [{"epoch": 0, "val_accuracy": 0.5}]
    model = create_model("aft_conv_digits", depth=1, embed_dim=16, num_heads=2)
    path = save_checkpoint(folder / "c", model, data=RECORD, recipe={"epochs": 1}, seed=0, metrics=rows)

    def in_place(name: str, read: Callable[[], object]) -> Callable[[bytes], object]:
        def of(content: bytes) -> object:
            (path / name).write_bytes(content)
            return read()

        return of

    def image(content: bytes) -> object:
        return to_pixels(read_image(content), 3)

    parts = {
        "config": ("config.yaml", lambda: (read_config(path), describe("c", path))),
        "weights": ("model.safetensors", lambda: load_checkpoint(path)),
        "metrics": ("metrics.csv", lambda: (read_rows(path), describe("c", path))),
    }
    outcomes = {}
    for kind, (name, read) in parts.items():
        whole = (path / name).read_bytes()
        known = [file.read_bytes() for file in sorted((CORPUS / kind).glob("*"))]
        outcomes[kind] = counted(draw, count, [whole], known, in_place(name, read))
        (path / name).write_bytes(whole)
    known = [file.read_bytes() for file in sorted((CORPUS / "image").glob("*"))]
    outcomes["image"] = counted(draw, count, list(pictures().values()), known, image)
    return outcomes


def counted(
    draw: random.Random, count: int, whole: list[bytes], known: list[bytes], read: Callable[[bytes], object]
) -> dict[str, int]:
    """Outcomes of what is known and of `count` mutations of what is whole."""
    found = {"read": 0, "answered": 0, "traceback": 0, "hang": 0, "allocation": 0}
    for number in range(len(known) + count):
        content = known[number] if number < len(known) else mutated(draw, draw.choice(whole))
        begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read(content)
            found["read"] += 1
        except Exception as error:  # counted: what has no words would have been a traceback
            if answer(error):
                found["answered"] += 1
            else:
                found["traceback"] += 1
                print(f"{type(error).__name__}: {error} of {content[:200]!r}")
        found["hang"] += time.monotonic() - begun > SLOW
        found["allocation"] += resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > LARGE
    return found
