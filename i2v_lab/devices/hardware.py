"""What this machine is: its device, memory, and the versions that a clip depends on."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import socket
import sys
from contextlib import suppress
from pathlib import Path

import psutil

GIB = 2**30


def machine(device: str = "auto") -> dict[str, str | float | None]:
    """What this machine is.

    Args:
        device: "cpu", "cuda", "cuda:1"; "auto" is the first CUDA device, or the CPU where there is none.

    Returns:
        host: its name. device_name: of the GPU, or else of the CPU. ram_gib: all memory that processes here may use.
        vram_gib: all memory of the GPU; None without one.
    """
    found = None if device == "cpu" else gpu(int(device.partition(":")[2] or 0))
    name, vram_bytes = found[:2] if found else (_cpu_name(), None)
    return {
        "host": socket.gethostname(),
        "device_name": name,
        "ram_gib": _ram_bytes() / GIB,
        "vram_gib": None if vram_bytes is None else vram_bytes / GIB,
    }


def gpu(index: int, *, free: bool = False) -> tuple[str, int, int] | None:
    """Name, bytes of memory, and bytes free of a CUDA device; None where there is none.

    Args:
        free: whether to look at what is free, with what torch holds in this process; that wakes the device.
    """
    torch = sys.modules.get("torch")
    # It knows best: a CPU build cannot use the GPU that the driver shows, and CUDA_VISIBLE_DEVICES counts.
    if torch is not None:
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            return None
        known = torch.cuda.get_device_properties(index)
        left = torch.cuda.mem_get_info(index)[0] + torch.cuda.memory_reserved(index) if free else 0
        return str(known.name), int(known.total_memory), int(left)
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None  # no driver
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        name = pynvml.nvmlDeviceGetName(handle)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return name if isinstance(name, str) else name.decode(), int(memory.total), int(memory.free)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


@functools.cache
def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "CPU"


def _ram_bytes() -> int:
    """Memory of the machine, or of the container where that is less."""
    total = int(psutil.virtual_memory().total)
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        with suppress(OSError, ValueError):  # no such file, or "max"
            total = min(total, int(limit.read_text("utf-8")))
    return total


def cpu_capability() -> str:
    """The widest instructions that torch uses on this CPU, such as AVX2 or AVX512; "" before torch is imported."""
    torch = sys.modules.get("torch")
    return str(torch.backends.cpu.get_cpu_capability()) if torch is not None else ""


# What a result depends on, and the distributions that bring it.
_PACKAGES = {
    "i2v_lab": ("i2v_lab",),
    "torch": ("torch",),
    "diffusers": ("diffusers",),
    "transformers": ("transformers",),
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python", "opencv-contrib-python-headless", "opencv-contrib-python"),
}


def versions() -> dict[str, str]:
    """Versions of Python and of what decides a clip, without importing any of it. What is not installed is absent."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name, distributions in _PACKAGES.items():
        for distribution in distributions:
            with suppress(importlib.metadata.PackageNotFoundError):
                found.setdefault(name, importlib.metadata.version(distribution))
    return found
