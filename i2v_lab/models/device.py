"""Where a model computes and in which numbers: torch's device and dtype by their names, held against what is here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from i2v_lab.errors import ModelError

DTYPES: Mapping[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
GPUS: Mapping[str, Any] = {"cuda": torch.cuda, "xpu": torch.xpu, "mps": torch.mps}
"""torch's modules for the devices besides the CPU, in the order in which "auto" looks for them."""


def choose_device(name: str | None) -> torch.device:
    """The torch device of a name; None: the first of GPUS that is here, else the CPU. ModelError if there is none of that name."""
    if name is None:
        name = next((kind for kind, module in GPUS.items() if module.is_available()), "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", *GPUS):
        raise ModelError(f"device: expected cpu, cuda, cuda:N, xpu or mps, got {name!r}")
    if device.type == "cpu":
        return device
    if (device.index or 0) >= (seen := GPUS[device.type].device_count()):
        kind = device.type.upper()
        raise ModelError(
            f"device: expected one of the {seen} {kind} devices that torch sees, got {name}; use cpu or fix the driver"
        )
    return torch.device("mps") if device.type == "mps" else torch.device(device.type, device.index or 0)


def choose_dtype(name: str, device: torch.device, on_cuda: str = "float16") -> torch.dtype:
    """The torch dtype of a name; "auto": that of the family on a GPU, otherwise float32.

    Raises:
        ModelError: there is none of that name, or the device cannot compute in it.
    """
    if name == "auto":
        name = "float32" if device.type == "cpu" else on_cuda
    if name not in DTYPES:
        raise ModelError(f"dtype: expected auto, {', '.join(DTYPES)}, got {name!r}")
    if name == "bfloat16" and not _has_bfloat16(device):
        raise ModelError(
            f"dtype: {device} does not compute in bfloat16; use --dtype float32 or float16, another device, or a newer system"
        )
    return DTYPES[name]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New modules take this dtype: `.to(dtype)` cannot swap the data of a fake parameter."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16, emulated or not."""
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(14, 0)
    return device.type != "xpu" or bool(torch.xpu.is_bf16_supported())
