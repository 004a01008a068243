"""From a packed batch to images on a GPU: what is still encoded by nvJPEG, then kernels."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aft_lens.data.augment.draw import Augmentation
from aft_lens.data.files.images import Maker
from aft_lens.data.files.reader import Files, Packed, Wanted
from aft_lens.later import later

if TYPE_CHECKING:
    from torchvision import io
else:
    io = later("torchvision.io")


class DeviceMaker:
    """Decodes and augments packed batches; what the decoder refuses is read again on the CPU.

    torchvision's decoder writes on a stream of its own that waits for nobody (pytorch/vision#9606): pictures are
    allocated on the stream `decoded`, where nothing else is, so that their memory is free before it is written again.
    """

    def __init__(self, files: Files, augmentation: Augmentation, device: torch.device) -> None:
        self.files, self.device = files, device
        self.maker = Maker(augmentation.size, augmentation.mean, augmentation.std, augmentation.resampling, device)
        self.decoded = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, packed: Packed) -> tuple[Packed, Tensor]:
        """The batch, as it was read in the end, and its images."""
        packed, pictures, places = self.pictures(packed)
        return packed, self.maker(pictures, places, packed.draws)

    def pictures(self, packed: Packed) -> tuple[Packed, Tensor, np.ndarray]:
        """The batch, as it was read in the end, its pictures in one buffer of bytes, and where each begins.

        The batch's own bytes are given back.
        """
        decoded = self.decode(packed)
        if decoded is None:
            packed.content.release()
            packed = self.files.packed(Wanted(packed.drawn, nvjpeg=True))
            decoded = self.decode(packed)
            assert decoded is not None, "a decoder changed its mind"
        begins, by_workers = np.array(packed.begins, np.int64), len(decoded) < len(packed.begins)
        parts = [self._copied(packed.content.memory)] if by_workers else []
        packed.content.release()
        sizes = [*map(len, parts), *(picture.numel() for picture in decoded)]
        begins[np.array(packed.lengths) > 0] = np.cumsum([0, *sizes])[len(parts) : -1]
        parts += [picture.flatten() for picture in decoded]
        return packed, parts[0] if len(parts) == 1 else torch.cat(parts), begins

    def decode(self, packed: Packed) -> list[Tensor] | None:
        """Pictures of the encoded files; None after some were found that it does not take: `files.on_cpu` has them."""
        places = [place for place, length in enumerate(packed.lengths) if length]
        if not places:
            return []
        content = packed.content.memory
        encoded = [content[packed.begins[at] : packed.begins[at] + packed.lengths[at]] for at in places]
        try:
            pictures = self._decoded(encoded)
            sizes = [(3, *packed.stored[at].size) for at in places]
            wrong = [at for at, picture, size in zip(places, pictures, sizes, strict=True) if picture.shape != size]
        except RuntimeError:
            wrong = [at for at, data in zip(places, encoded, strict=True) if not self._decodes(data)]
            if not wrong:
                raise
        if not wrong:
            return pictures
        self.files.on_cpu |= {packed.numbers[at] for at in wrong}
        return None

    def _copied(self, content: Tensor) -> Tensor:
        """Bytes on the device, by way of memory that it reads while others compute."""
        if self.device.type != "cuda":
            return content.clone()
        return content.pin_memory().to(self.device, non_blocking=True)

    def _decoded(self, encoded: list[Tensor]) -> list[Tensor]:
        """By nvJPEG, or in the interpreter by the CPU's decoder."""
        if self.decoded is None:
            return [io.decode_jpeg(data, io.ImageReadMode.RGB) for data in encoded]
        with torch.cuda.stream(self.decoded):
            pictures = io.decode_jpeg(encoded, io.ImageReadMode.RGB, device=self.device)
        stream = torch.cuda.current_stream(self.device)
        for picture in pictures:
            picture.record_stream(stream)
        return pictures

    def _decodes(self, data: Tensor) -> bool:
        """Whether one file can be decoded."""
        try:
            self._decoded([data])
        except RuntimeError:
            return False
        return True
