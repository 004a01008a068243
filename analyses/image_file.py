"""The image that a command is given."""

from pathlib import Path

from PIL import Image

from aft_lens.data import how_read, read_image


def image_file(path: Path) -> Image.Image:
    """An image file as `read_image` gives it, with a line on what was done to it."""
    picture = read_image(path)
    if done := how_read(picture):
        print(f"{path}: {done}")
    return picture
