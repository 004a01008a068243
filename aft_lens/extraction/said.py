"""What a user says of a model beyond its name: weights of one's own, a stage, and how images must come to it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from aft_lens.errors import InputError
from aft_lens.extraction.preprocessing import Preprocessing, channels

IMAGES = ("size", "mean", "std")
"""Words after a model's name that say how images must come; its library's adapter reads the others."""


@dataclass(frozen=True)
class SaidImages:
    """How a user says that images must come; None and empty what is left to the model's own configuration."""

    size: int | None = None
    """Side, in pixels."""
    mean: tuple[float, ...] = ()
    """By channel, in [0, 1] image units, or one for all."""
    std: tuple[float, ...] = ()

    def over(self, own: Preprocessing | None, source: str, size: tuple[int, int], count: int) -> Preprocessing | None:
        """The model's own, with what is said in its place; None where neither says anything.

        `size` and `count` are the rows and columns and the channels of the images that the model takes. Raises
        InputError on another size, and where mean or std stay unknown.
        """
        if self.size is not None and (self.size, self.size) != size:
            raise InputError(
                f"{source}: the model takes images of {size[0]} x {size[1]} pixels, --size {self.size} was asked for; "
                "ask for other patches by --grid, where a command has it, or leave size out"
            )
        if self == SaidImages():
            return own
        mean, std = self.mean or (own and own.mean), self.std or (own and own.std)
        if not mean or not std:
            raise InputError(
                f"{source}: give both --mean and --std, by channel or one for all, e.g. --mean 0.5 --std 0.5; no "
                "image processor says them"
            )
        crop, by = (own.crop, own.interpolation) if own else (1.0, "bilinear")
        return Preprocessing(size, channels(mean, count), channels(std, count), crop=crop, interpolation=by)


def said(spec: str) -> tuple[str, SaidImages]:
    """A source without the words of `IMAGES` after its name, and what they say; InputError on values not numbers.

    E.g. hf:PATH,size=224,mean=0.5/0.5/0.5,std=0.5.
    """
    name, *words = spec.split(",")
    options = [word.partition("=")[::2] for word in words]
    rest = [word for word, (key, _) in zip(words, options) if key not in IMAGES]
    found = {key: value for key, value in options if key in IMAGES}
    if not found:
        return spec, SaidImages()
    try:
        numbers = {key: tuple(float(part) for part in value.split("/")) for key, value in found.items()}
    except ValueError as error:
        raise InputError(f"{spec}: size, mean and std must be numbers, e.g. size=224,mean=0.5/0.5/0.5") from error
    size = numbers.pop("size", None)
    if size is not None and (len(size) != 1 or not size[0].is_integer()):
        raise InputError(f"{spec}: size must be the side of the image in pixels, e.g. size=224")
    if not all(map(math.isfinite, sum(numbers.values(), ()))):
        raise InputError(f"{spec}: mean and std must be finite")
    return ",".join([name, *rest]), SaidImages(None if size is None else int(size[0]), **numbers)


def with_words(
    source: str, *, weights: str | None = None, num_classes: int | None = None, size: int | None = None,
    mean: float | Sequence[float] | None = None, std: float | Sequence[float] | None = None,
) -> str:  # fmt: skip
    """A source with what a command's options say of it, as words after its name; ValueError on a checkpoint of ours."""
    given = {
        "weights": weights, "classes": num_classes, "size": size, "mean": _slashed(mean), "std": _slashed(std),
    }  # fmt: skip
    words = [f"{word}={value}" for word, value in given.items() if value is not None]
    if words and ":" not in source:
        raise ValueError(
            f"--weights, --num-classes, --size, --mean and --std are for other libraries' models, {source} says all of "
            "it itself; leave them out"
        )
    return ",".join([source, *words])


def _slashed(values: float | Sequence[float] | None) -> str | None:
    """One number or several as one word."""
    if values is None:
        return None
    return "/".join(f"{one:g}" for one in ([values] if isinstance(values, int | float) else values))
