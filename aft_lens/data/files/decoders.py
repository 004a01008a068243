"""Decoders of JPEG files, for a device: bytes of files in, pictures of bytes `y x c` out, None where one is refused."""

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aft_lens.later import later

if TYPE_CHECKING:
    from nvidia import nvimgcodec
    from torchvision import io
else:
    io, nvimgcodec = later("torchvision.io"), later("nvidia.nvimgcodec")

Decoder = Callable[[Sequence[Tensor]], list[Tensor | None]]
THREADS = 4
"""Of nvImageCodec, which feed the GPU's JPEG engines: some two cores' work."""


def decoder_for(device: torch.device) -> Decoder:
    """nvImageCodec on a GPU, or torchvision's nvJPEG where that is not installed; torchvision's decoder on the CPU."""
    if device.type != "cuda":
        return TorchvisionDecoder(device)
    if has_nvimagecodec():
        try:
            return NvImageCodec(device)
        except (ImportError, RuntimeError) as error:
            warnings.warn(
                f"nvImageCodec cannot be used on {device} ({error}), torchvision decodes; install aft-lens[gpu] anew",
                stacklevel=2,
            )
    return TorchvisionDecoder(device)


def has_nvimagecodec() -> bool:
    """Whether nvImageCodec is installed (the extra `gpu`)."""
    try:
        return find_spec("nvidia.nvimgcodec") is not None
    except ModuleNotFoundError:
        return False


class NvImageCodec:
    """By the GPU's JPEG engines, or its multiprocessors where it has none or they refuse a file, on the current stream.

    Beside a GPU that is never idle it decodes as fast as alone.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        kinds = nvimgcodec.BackendKind.HW_GPU_ONLY, nvimgcodec.BackendKind.HYBRID_CPU_GPU
        self.decoder = nvimgcodec.Decoder(
            device_id=device.index, max_num_cpu_threads=THREADS, backends=[nvimgcodec.Backend(kind) for kind in kinds]
        )
        self.as_stored = nvimgcodec.DecodeParams(apply_exif_orientation=False)

    def __call__(self, files: Sequence[Tensor]) -> list[Tensor | None]:
        """The files' pictures, as they are stored."""
        parsed = [self._parsed(file) for file in files]
        images = self.decoder.decode(
            [each for each in parsed if each is not None], params=self.as_stored,
            cuda_stream=torch.cuda.current_stream(self.device).cuda_stream,
        )  # fmt: skip
        made = iter(images)
        found = [None if each is None else next(made) for each in parsed]
        return [None if image is None else torch.as_tensor(image, device=self.device) for image in found]

    def _parsed(self, file: Tensor) -> "nvimgcodec.CodeStream | None":
        try:
            return nvimgcodec.CodeStream(file.numpy())
        except RuntimeError:
            return None


class TorchvisionDecoder:
    """By torchvision: libjpeg-turbo on the CPU; nvJPEG on a GPU, which waits long beside other work there.

    On a GPU it writes on a stream of its own that waits for nobody (pytorch/vision#9606): pictures are allocated on a
    stream where nothing else is, so that their memory is free before it is written again.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, files: Sequence[Tensor]) -> list[Tensor | None]:
        """The files' pictures, as they are stored."""
        try:
            return [*self._decoded(files)]
        except RuntimeError:  # of which file it does not say
            return [self._one(file) for file in files]

    def _one(self, file: Tensor) -> Tensor | None:
        try:
            return self._decoded([file])[0]
        except RuntimeError:
            return None

    def _decoded(self, files: Sequence[Tensor]) -> list[Tensor]:
        if self.stream is None:
            planar = [io.decode_jpeg(file, io.ImageReadMode.RGB) for file in files]
        else:
            with torch.cuda.stream(self.stream):
                planar = io.decode_jpeg([*files], io.ImageReadMode.RGB, device=self.device)
            for picture in planar:
                picture.record_stream(torch.cuda.current_stream(self.device))
        return [picture.permute(1, 2, 0) for picture in planar]
