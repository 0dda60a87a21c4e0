"""Place: what a worker says of its device. WorkerState: what it is doing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from i2v_lab.models import Identity


@dataclass(frozen=True)
class Place:
    """A device on which clips are made.

    Attributes:
        host, pid: of the worker. node: Ray's name of its machine.
        device: as torch has it there: "cpu", "cuda:0".
        device_name: of the GPU, or of the CPU.
        bytes: memory that a clip may take there.
        versions: of what a clip depends on.
        identify: (model, dtype) to what the model is there, as `models.Handle.identity_here`.
    """

    host: str
    pid: int
    node: str
    device: str
    device_name: str
    bytes: int
    versions: Mapping[str, str] = field(default_factory=dict)
    identify: Callable[[str, str], Identity | None] = field(default=lambda model, dtype: None, compare=False, repr=False)

    @property
    def kind(self) -> tuple[str, str, float]:
        """Places of one kind hold the same clips: device, its name, and GiB, rounded down to a tenth."""
        return self.device, self.device_name, int(self.bytes / 2**30 * 10) / 10


@dataclass(frozen=True)
class WorkerState:
    """What a worker is doing.

    Attributes:
        host, pid, device_name: where.
        cell: the number of what it makes; 0 while it makes nothing. label: what sets that apart.
        stage, step, steps: as in SweepStatus.
        note: what it waits for.
    """

    host: str
    pid: int
    device_name: str
    cell: int = 0
    label: str = ""
    stage: str = ""
    step: int = 0
    steps: int | None = None
    note: str = ""

    @property
    def device(self) -> str:
        """The device's name without its maker's: `RTX 4090`."""
        return self.device_name.removeprefix("NVIDIA ").removeprefix("GeForce ")
