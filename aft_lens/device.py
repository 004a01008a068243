"""Where tensors live, by name, and who may work there."""

import threading

import torch

DEVICE_WORK = threading.Lock()
"""Held by a thread that works on a GPU beside the main one, and while a CUDA graph is captured: that bears no other."""


def usable_device(name: str | torch.device) -> torch.device:
    """The device of that name; ValueError if there is none here."""
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(name)!r} cannot be used here ({reason}); give cpu, cuda or cuda:N") from error
