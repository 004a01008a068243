"""Decoders of JPEG files: which one a device gets, and that what one refuses stays at its place."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from photos import photo

from aft_lens.data.files import decoders
from aft_lens.data.files.decoders import NvImageCodec, TorchvisionDecoder, decoder_for

CPU = torch.device("cpu")


def jpeg(tmp_path, number):
    """Bytes of a file."""
    photo(12 + number, 16, number).save(tmp_path / "one.jpg", quality=95)
    return torch.from_numpy(np.fromfile(tmp_path / "one.jpg", np.uint8))


def stand_in(refused, unparsed):
    """nvImageCodec, whose pictures have the file's length for a value; some it refuses, some are no files to it."""

    def stream(data):
        if len(data) in unparsed:
            raise RuntimeError("no code stream")
        return data

    def decode(streams, *, params, cuda_stream):
        assert (params, cuda_stream) == ("as stored", 7)
        return [None if len(data) in refused else np.full((2, 3, 3), len(data), np.uint8) for data in streams]

    def params(*, apply_exif_orientation):
        return "turned" if apply_exif_orientation else "as stored"

    return SimpleNamespace(
        BackendKind=SimpleNamespace(HW_GPU_ONLY="engines", HYBRID_CPU_GPU="both"), Backend=lambda kind: kind,
        Decoder=lambda **options: SimpleNamespace(decode=decode), DecodeParams=params, CodeStream=stream,
    )  # fmt: skip


def test_files_that_nvimagecodec_refuses_are_none_at_their_places(monkeypatch):
    monkeypatch.setattr(decoders, "nvimgcodec", stand_in(refused={20, 50}, unparsed={30}))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=7))
    files = [torch.zeros(length, dtype=torch.uint8) for length in (10, 20, 30, 40, 50, 60)]
    found = NvImageCodec(CPU)(files)
    assert [None if each is None else int(each[0, 0, 0]) for each in found] == [10, None, None, 40, None, 60]


def test_torchvision_s_decoder_refuses_one_file_alone(tmp_path):
    good = [jpeg(tmp_path, number) for number in range(2)]
    found = TorchvisionDecoder(CPU)([good[0], torch.zeros(50, dtype=torch.uint8), good[1]])
    assert [None if each is None else tuple(each.shape) for each in found] == [(12, 16, 3), None, (13, 16, 3)]


def test_a_gpu_without_nvimagecodec_gets_torchvision_s(monkeypatch):
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "a stream")
    monkeypatch.setattr(decoders, "has_nvimagecodec", lambda: False)
    assert isinstance(decoder_for(gpu), TorchvisionDecoder)
    monkeypatch.setattr(decoders, "has_nvimagecodec", lambda: True)
    broken = stand_in(set(), set())
    broken.Decoder = lambda **options: (_ for _ in ()).throw(RuntimeError("no libnvjpeg"))
    monkeypatch.setattr(decoders, "nvimgcodec", broken)
    with pytest.warns(UserWarning, match=r"no libnvjpeg.*install aft-lens\[gpu\] anew"):
        assert isinstance(decoder_for(gpu), TorchvisionDecoder)
    monkeypatch.setattr(decoders, "nvimgcodec", stand_in(set(), set()))
    assert isinstance(decoder_for(gpu), NvImageCodec)
    assert isinstance(decoder_for(CPU), TorchvisionDecoder)
