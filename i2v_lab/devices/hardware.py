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

from i2v_lab.devices.gpus import cpu_name, gpu

GIB = 2**30


def machine(device: str = "auto") -> dict[str, str | float | None]:
    """What this machine is.

    Args:
        device: "cpu", "cuda", "cuda:1", "xpu", "mps"; "auto" is the first GPU, or the CPU where there is none.

    Returns:
        host: its name. device_name: of the GPU, or else of the CPU. ram_gib: all memory that processes here may use.
        vram_gib: all memory of the GPU; None without one.
    """
    found = gpu(device)
    return {
        "host": socket.gethostname(),
        "device_name": found.name if found else cpu_name(),
        "ram_gib": _ram_bytes() / GIB,
        "vram_gib": found.total / GIB if found else None,
    }


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
