"""The devices besides the CPU that torch computes on: CUDA (NVIDIA, and AMD through ROCm), Intel's XPU, Apple's MPS.

Where torch is not imported yet NVML answers for NVIDIA's cards, in milliseconds; torch is imported where NVML cannot know what it sees.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

KINDS = ("cuda", "xpu", "mps")
"""In the order in which "auto" looks for them."""

_PLAIN = re.compile(r"\d+(,\d+)*")


class Gpu(NamedTuple):
    """A device.

    Attributes:
        device: as torch names it: "cuda:0", "xpu:0", "mps".
        name: of the card or chip.
        total: bytes of its memory; of Apple's, which is the machine's too, what Metal recommends at most.
        free: bytes free now, with what torch holds in this process; 0 where it was not asked for.
        uuid: which card it is, whatever its number is in this process; "" where that is not known.
    """

    device: str
    name: str
    total: int
    free: int = 0
    uuid: str = ""


def gpu(device: str = "auto", *, free: bool = False) -> Gpu | None:
    """A device by its name; None where there is none.

    Args:
        device: "cuda", "cuda:1", "xpu", "mps"; "auto": the first of KINDS that is here. "cpu" is none.
        free: whether to look at what is free; that wakes the device.
    """
    wanted, _, index = device.partition(":")
    for kind in KINDS if wanted == "auto" else (wanted,) if wanted in KINDS else ():
        if "torch" not in sys.modules and kind == "cuda" and not free:
            found, sure = _by_nvml(int(index or 0))
            if sure:
                if found is not None or wanted != "auto":
                    return found
                continue
        if "torch" not in sys.modules and kind != "cuda" and not _torch_may_have(kind):
            continue
        if (known := _by_torch(kind, int(index or 0), free)) is not None:
            return known
    return None


def default_device() -> str:
    """The device of "auto": the first of KINDS that is here, otherwise the CPU."""
    found = gpu()
    return found.device if found else "cpu"


def module_of(device: str) -> Any:
    """torch.cuda, torch.xpu or torch.mps, where the device is of that kind and torch uses it already; otherwise None.

    It is never the first to import torch or to wake a device. "auto" is the one of the first two that is in use.
    """
    torch, kind = sys.modules.get("torch"), device.partition(":")[0]
    if torch is None or kind == "cpu":
        return None
    if kind == "mps":
        return torch.mps if torch.backends.mps.is_available() else None
    for name in (kind,) if kind in KINDS else ("cuda", "xpu"):
        module = getattr(torch, name, None)
        if module is not None and module.is_initialized():
            return module
    return None


def runtime(device: str) -> str:
    """What torch computes through on a device, with its version: "CUDA 12.8", "ROCm 6.4", "XPU", "MPS", "CPU". It imports torch."""
    import torch

    kind = device.partition(":")[0]
    if kind != "cuda":
        return kind.upper()
    return f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"


@functools.cache
def cpu_name() -> str:
    """Of the processor; of Apple's chips, which have the GPU in them too, that of the chip."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.check_output(["sysctl", "-n", "machdep.cpu.brand_string"], text=True, timeout=10).strip()
    return platform.processor() or platform.machine() or "CPU"


def _torch_may_have(kind: str) -> bool:
    """Whether the torch that is installed can have such a device, without importing it."""
    return sys.platform == "darwin" if kind == "mps" else _build() == kind


def _build() -> str:
    """What torch was built for, by its version: 2.13.0+cpu, +cu128, +rocm6.4, +xpu; "" is the plain one."""
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("torch").partition("+")[2]
    return "cpu"


def _by_nvml(index: int) -> tuple[Gpu | None, bool]:
    """(the card that torch will call cuda:INDEX, whether that is sure).

    NVML counts all cards in the order of the bus. torch counts those of CUDA_VISIBLE_DEVICES, the fastest first unless
    CUDA_DEVICE_ORDER says otherwise; of a card in MIG mode it sees one part.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if _build() == "cpu" or visible == "" or (_build() == "" and sys.platform == "win32"):  # PyPI's wheel for Windows is for CPUs
        return None, True
    if _build().startswith("rocm"):
        return None, False
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None, True  # no driver
    try:
        return _card(index, visible)
    except pynvml.NVMLError:
        return None, False
    finally:
        pynvml.nvmlShutdown()


def _card(index: int, visible: str | None) -> tuple[Gpu | None, bool]:
    """As `_by_nvml`, where NVML is there; `visible` is CUDA_VISIBLE_DEVICES."""
    import pynvml

    handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
    names = [_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
    ordered = len(set(names)) <= 1 or os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if any(map(_in_parts, handles)) or not ordered or not _PLAIN.fullmatch(visible or "0"):
        return None, False
    numbers = range(len(handles)) if visible is None else [int(part) for part in visible.split(",")]
    if index >= len(numbers) or numbers[index] >= len(handles):
        return None, True
    handle = handles[numbers[index]]
    total, uuid = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total), _text(pynvml.nvmlDeviceGetUUID(handle))
    return Gpu(f"cuda:{index}", names[numbers[index]], total, uuid=uuid), True


def _in_parts(handle: Any) -> bool:
    """Whether a card is in MIG mode."""
    import pynvml

    try:
        return bool(pynvml.nvmlDeviceGetMigMode(handle)[0])
    except pynvml.NVMLError:  # it has no such mode
        return False


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _by_torch(kind: str, index: int, free: bool) -> Gpu | None:
    import torch

    module: Any = getattr(torch, kind, None)
    if kind == "mps":
        if module is None or not torch.backends.mps.is_available():
            return None
        total = int(module.recommended_max_memory())
        return Gpu("mps", cpu_name(), total, max(0, total - int(module.driver_allocated_memory())) if free else 0)
    if module is None or not module.is_available() or index >= module.device_count():
        return None
    known = module.get_device_properties(index)
    left = int(module.mem_get_info(index)[0]) + int(module.memory_reserved(index)) if free else 0
    uuid = getattr(known, "uuid", "")
    return Gpu(f"{kind}:{index}", str(known.name), int(known.total_memory), left, f"GPU-{uuid}" if uuid else "")
