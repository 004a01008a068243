"""From a packed batch to images on a GPU: a decoder for what is still encoded, then kernels."""

import numpy as np
import torch
from torch import Tensor

from aft_lens.data.augment.draw import Augmentation
from aft_lens.data.files.decoders import decoder_for
from aft_lens.data.files.images import Maker
from aft_lens.data.files.reader import Files, Packed


class DeviceMaker:
    """Decodes and augments packed batches; what the decoder refuses is read again on the CPU."""

    def __init__(self, files: Files, augmentation: Augmentation, device: torch.device) -> None:
        self.files, self.device = files, device
        self.maker = Maker(augmentation.size, augmentation.mean, augmentation.std, augmentation.resampling, device)
        self.decoder = decoder_for(device)

    def __call__(self, packed: Packed) -> tuple[Packed, Tensor]:
        """The batch, as it was read in the end, and its images."""
        packed, pictures, places = self.pictures(packed)
        return packed, self.maker(pictures, places, packed.draws)

    def pictures(self, packed: Packed) -> tuple[Packed, Tensor, np.ndarray]:
        """The batch, as it was read in the end, its pictures in one buffer of bytes, and where each begins."""
        decoded = self.decode(packed)
        if decoded is None:
            packed = self.files.packed(packed.drawn)
            decoded = self.decode(packed)
            assert decoded is not None, "a decoder changed its mind"
        starts = np.cumsum([0, *(picture.numel() for picture in decoded)])
        begins = np.array([*starts[:-1], *(starts[-1] + begin for begin in packed.begins)], np.int64)
        places = begins[[at if at >= 0 else len(decoded) - 1 - at for at in packed.order]]
        parts = [picture.flatten() for picture in decoded]
        if len(packed.pictures):
            parts.append(self._copied(packed.pictures))
        return packed, parts[0] if len(parts) == 1 else torch.cat(parts), places

    def decode(self, packed: Packed) -> list[Tensor] | None:
        """Pictures of the encoded files; None after some were found that it does not take: `files.on_cpu` has them."""
        images = dict(zip(packed.order, zip(packed.numbers, packed.stored, strict=True), strict=True))
        pictures, wrong = [], set()
        for at, picture in enumerate(self.decoder(packed.files.split(packed.lengths)) if packed.lengths else []):
            number, stored = images[at]
            if picture is None or picture.shape != (*stored.size, 3):
                wrong.add(number)
            else:
                pictures.append(picture)
        self.files.on_cpu |= wrong
        return None if wrong else pictures

    def _copied(self, pictures: Tensor) -> Tensor:
        """Bytes on the device, by way of memory that it reads while others compute."""
        if self.device.type != "cuda":
            return pictures
        return pictures.pin_memory().to(self.device, non_blocking=True)
