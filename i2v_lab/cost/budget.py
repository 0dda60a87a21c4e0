"""The memory that a clip may take: what is free now, or what another card has.

GB are 10^9 bytes, as vendors and file managers count; GiB are 2^30 bytes, as torch and `nvidia-smi` count.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil

from i2v_lab.devices.gpus import gpu
from i2v_lab.devices.hardware import GIB
from i2v_lab.errors import ParamsError
from i2v_lab.models.parallel import devices_of

GB = 10**9

# What is left free. On a CPU: for the other programs. On CUDA: for the device's context and the workspaces of its kernels,
# which no tensor shows, and a share for what the allocator cannot use because it is in pieces. Not measured on a GPU.
RAM_MARGIN = GIB // 2
VRAM_MARGIN, VRAM_SHARE = 3 * GIB // 4, 0.03

CARDS: Mapping[str, int] = MappingProxyType({
    "GTX 1660 6 GB": 6, "RTX 3060 8 GB": 8, "RTX 3060 12 GB": 12, "RTX 3080 10 GB": 10, "RTX 3090 24 GB": 24, "RTX 4060 8 GB": 8,
    "RTX 4060 Ti 16 GB": 16, "RTX 4070 12 GB": 12, "RTX 4080 16 GB": 16, "RTX 4090 24 GB": 24, "RTX 5090 32 GB": 32,
    "T4 16 GB": 16, "V100 16 GB": 16, "V100 32 GB": 32, "L4 24 GB": 24, "A10 24 GB": 24, "L40S 48 GB": 48, "A6000 48 GB": 48,
    "A100 40 GB": 40, "A100 80 GB": 80, "H100 80 GB": 80, "H200 141 GB": 141,
})  # fmt: skip
"""Published sizes, counted as GB, which is a little less than most of them have."""


@dataclass(frozen=True)
class Budget:
    """Memory that a clip may take.

    Attributes:
        bytes: how much, without the margin.
        name: what it is, in words: "free VRAM of cuda:0", "12 GB of VRAM".
    """

    bytes: int
    name: str

    @classmethod
    def free(cls, device: str, margin: int | None = None) -> Budget:
        """What is free on a device now, together with what this process holds of it already.

        A loaded model's weights are there and in every forecast, so they must not count twice: on CUDA all that
        torch's allocator holds is added to the free memory; on a CPU, the resident memory of this process.

        Args:
            device: "cpu", "cuda", "cuda:1", "xpu", "mps".
            margin: bytes to leave free on a GPU, where that was measured there.
        """
        if device == "cpu":
            return cls(max(0, _available_ram() + _own_ram() - RAM_MARGIN), "free RAM")
        found = gpu(device, free=True)
        # A missing device must not be reported as a full one.
        return cls(
            max(0, found.free - margin) if found and margin is not None else _less_margin(found.free if found else 0),
            f"free VRAM of {device}" + ("" if found else " (there is no such device here)"),
        )

    @classmethod
    def of_each(cls, device: str, count: int, held: int = 0, margin: int | None = None) -> Budget:
        """What each of several processes may take: the least that is free on one of their devices. On a CPU they share what it has.

        Args:
            device: the first. count: of devices; 1: as `free`. held: bytes that each process has already. margin: as `free`.
        """
        if count == 1:
            return cls.free(device, margin)
        least = min((cls.free(one, margin) for one in devices_of(device, count)), key=lambda budget: budget.bytes)
        own = least.bytes if device.startswith("cuda") else least.bytes // count
        return cls(own + held, f"{least.name} for each of {count} processes")

    @classmethod
    def vram(cls, gigabytes: float) -> Budget:
        """That of a card with so many GB (10^9 bytes) and nothing else on it. ParamsError unless 1 to 10000."""
        if not 1 <= gigabytes <= 10_000:
            raise ParamsError(f"vram: expected 1 to 10000 GB, got {gigabytes:g}")
        return cls(_less_margin(int(gigabytes * GB)), f"{gigabytes:g} GB of VRAM")

    @classmethod
    def card(cls, name: str) -> Budget:
        """That of a known card, by its name or a part of it: "RTX 4090". ParamsError where it is unknown or names several."""
        found = cls.cards(name)
        if len(found) > 1:
            raise ParamsError(
                f"card: expected one of {', '.join(budget.name for budget in found)}; got {name!r}; or give --vram in GB"
            )
        return found[0]

    @classmethod
    def cards(cls, name: str) -> list[Budget]:
        """Those of a known card in all sizes that it is sold in. ParamsError where it is unknown, or names several cards."""
        asked = _bare(name)
        found = [card for card in CARDS if asked and asked in _bare(card)]
        found = [card for card in found if _bare(_model(card)) == asked] or found
        if len({_model(card) for card in found}) != 1:
            listed = ", ".join(found or CARDS)
            raise ParamsError(f"card: expected {'one of ' if found else ''}{listed}; got {name!r}; or give --vram in GB")
        return [cls(_less_margin(CARDS[card] * GB), card) for card in found]


def _bare(name: str) -> str:
    return name.casefold().replace(" ", "")


def _model(card: str) -> str:
    """The name of a card without its size: RTX 3060 of RTX 3060 12 GB."""
    return card.rsplit(" ", 2)[0]


def _less_margin(size: int) -> int:
    return max(0, int(size * (1 - VRAM_SHARE)) - VRAM_MARGIN)


def _own_ram() -> int:
    """Resident bytes of this process, without files in memory (libraries, weights that are mapped): those are available."""
    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))  # psutil has it on Linux


def _available_ram() -> int:
    """What programs can still take without swapping; of a container with a limit, what is left of that."""
    available = int(psutil.virtual_memory().available)
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        with suppress(OSError, ValueError):  # no such file, or "max"
            left = int(_cgroup(limit)) - int(_cgroup(used)) + _reclaimable()
            available = min(available, left)
    return max(0, available)


def _cgroup(name: str) -> str:
    return (Path("/sys/fs/cgroup") / name).read_text("utf-8")


def _reclaimable() -> int:
    """Bytes of cached files that count against a container's limit and are dropped when memory is needed.

    Files that were read more than once (active) count too: otherwise a checkpoint loaded twice would fill the container.
    """
    for name, prefix in (("memory.stat", ""), ("memory/memory.stat", "total_")):
        with suppress(OSError, ValueError):
            found = dict(line.split() for line in _cgroup(name).splitlines())
            return sum(int(found.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
    return 0
