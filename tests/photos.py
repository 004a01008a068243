"""Small image files of all kinds that people have, for tests of what reads them."""

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def photo(rows, columns, seed=0):
    """A picture with edges and shades."""
    patches = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((columns, rows), Image.Resampling.BICUBIC)


def odd_files(folder):
    """One file of each kind, by name; those that nobody can read are called bad-…"""
    folder.mkdir(parents=True, exist_ok=True)
    picture = photo(20, 30)
    kinds = {
        "baseline.jpg": (picture, {"quality": 95, "subsampling": 0}),
        "progressive.jpg": (picture, {"quality": 95, "subsampling": 0, "progressive": True}),
        "halved.jpg": (picture, {"quality": 95, "subsampling": 2}),
        "grey.jpg": (picture.convert("L"), {}),
        "cmyk.jpg": (picture.convert("CMYK"), {}),
        "rgb.jpg": (picture, {"keep_rgb": True}),
        "deep.png": (Image.fromarray(np.uint16(np.asarray(picture.convert("L"))) * 257), {}),
        "clear.png": (picture.convert("RGBA"), {}),
        "palette.gif": (picture.convert("P"), {}),
        "moving.gif": (picture.convert("P"), {"save_all": True, "append_images": [photo(20, 30, 1).convert("P")]}),
        "web.webp": (picture, {"lossless": True}),
        "dot.jpg": (photo(1, 1), {}),
        "line.jpg": (photo(1, 40), {}),
    }
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = turn
        picture.save(folder / f"turned-{turn}.jpg", exif=exif, quality=95, subsampling=0)
    whole = (folder / "baseline.jpg").read_bytes()
    (folder / "bad-short.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "bad-text.jpg").write_bytes(b"no image")
    (folder / "bad-empty.jpg").write_bytes(b"")
    (folder / "padded.jpg").write_bytes(whole + b"\0" * 20)
    return sorted(file.name for file in folder.iterdir())
