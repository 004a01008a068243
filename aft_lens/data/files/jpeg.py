"""What the head of a JPEG file says: enough to know whether a GPU's decoder reads it as Pillow does."""

import struct
from dataclasses import dataclass

START, END, SCAN, APP1, ADOBE = 0xD8, 0xD9, 0xDA, 0xE1, 0xEE
FRAMES = frozenset((*range(0xC0, 0xD0),)) - {0xC4, 0xC8, 0xCC}
"""Markers of a frame's head, of all kinds."""
READ = (0xC0, 0xC1, 0xC2)
"""Baseline, extended and progressive frames, Huffman coded: what decoders of GPUs read."""
TAIL = 64
"""Bytes at a file's end in which its end marker must be: some cameras pad."""
ORIENTATION = 0x0112
LARGEST = 2**15
"""Side of a picture, in pixels, up to which its pixels are counted in 32 bits below."""
MOST_PIXELS, MOST_VISITS = 25_000_000, 2**29
"""Of a picture, and times that a decoder visits one, in each scan: a GPU's decoder has no clock, `read_image` has."""


@dataclass(frozen=True)
class Head:
    """A picture that a GPU's decoder may read: three components of 8 bits, whole, upright after `orientation`."""

    rows: int
    """As it is stored."""
    columns: int
    """As it is stored."""
    orientation: int = 1
    """EXIF's, 1 to 8."""


def read_head(data: bytes) -> Head | None:
    """The head of a JPEG that a GPU decodes; None for all else, which `read_image` reads or names.

    None are files that are no JPEG or end early, grey and CMYK ones, those that are RGB inside (Adobe's mark), of 12
    bits, lossless or arithmetically coded, those with several frames, and those with more than `MOST_PIXELS` or
    `MOST_VISITS`.
    """
    if data[:2] != b"\xff\xd8" or b"\xff\xd9" not in data[-TAIL:]:
        return None
    place, size, orientation, frame = 2, len(data), 1, None
    while place + 4 <= size:
        if data[place] != 0xFF:
            return None
        marker = data[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        content = place + 4
        if place + 2 + length > size:
            return None
        if marker in FRAMES:
            if marker not in READ or length < 8 + 9 or frame is not None:
                return None
            bits, rows, columns, components = struct.unpack_from(">BHHB", data, content)
            if bits != 8 or components != 3 or not 0 < rows <= LARGEST or not 0 < columns <= LARGEST:
                return None
            if bytes(data[content + 6 + 3 * i] for i in range(3)) == b"RGB":
                return None
            frame = rows, columns
        elif marker == ADOBE and data[content : content + 5] == b"Adobe" and length >= 14:
            if data[content + 11] != 1:  # 0 is RGB, 2 is of CMYK
                return None
        elif marker == APP1 and data[content : content + 6] == b"Exif\0\0":
            orientation = _orientation(data[content + 6 : place + 2 + length])
        elif marker == SCAN:
            if frame is None or frame[0] * frame[1] > MOST_PIXELS:
                return None
            visits = frame[0] * frame[1] * data.count(bytes((0xFF, SCAN)), place)
            return Head(*frame, orientation) if visits <= MOST_VISITS else None
        place += 2 + length
    return None


def _orientation(exif: bytes) -> int:
    """EXIF's orientation, 1 where it has none or cannot be read."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    (first,) = struct.unpack_from(order + "I", exif, 4)
    if first + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(order + "H", exif, first)
    for place in range(first + 2, min(first + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, values, value = struct.unpack_from(order + "HHIH", exif, place)
        if tag == ORIENTATION:
            return value if kind == 3 and values == 1 and 1 <= value <= 8 else 1
    return 1
