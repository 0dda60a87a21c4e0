"""What a run costs: seconds a stage, the highest memory, and the machine that it ran on."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import psutil

from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.devices.gpus import module_of
from i2v_lab.devices.hardware import GIB

SAMPLE_SECONDS = 0.01  # between two looks at the memory of the process; a look takes some 20 microseconds


def trim() -> None:
    """Give back what the C library keeps of memory that was freed: otherwise a clip would grow into what the one before left."""
    with suppress(OSError, AttributeError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


class Meter(Progress):
    """Measures a run, and receives its stages as a progress listener.

        with Meter() as meter:
            frames = model.generate(picture, params, Listeners(meter, screen))
        meter.seconds["denoise"], meter.peak_ram_gib

    One meter measures one run. It is complete after the `with` block, also where the run ended with an error.

    Attributes:
        device: where the model computes: "cpu", "cuda:1", "xpu:0", "mps". "auto" measures CUDA or XPU where it is in use. May be set
            inside the block, once the model is loaded and its device known; what counts is the value at the end.
        seconds: wall seconds of each stage, in the order they began; a stage entered twice adds up. What passes
            between entry and the first stage is in `total` alone.
        total: wall seconds of the whole block; while it runs, of what has passed.
        steps: denoising steps done.
        peak_ram_gib: the highest resident memory of this process during the block, GiB, looked at every 10 ms.
        ram_rise_gib: the highest less what it was when the stage "load" was over, GiB; None where the run did not come so far.
        peak_vram_allocated_gib: the most that tensors took on the device during the block, GiB; None without a GPU. On MPS, which keeps no
            highest value, it is looked at every 10 ms.
        peak_vram_reserved_gib: the most that torch's allocator held of the device, GiB; None without a GPU.
    """

    def __init__(self, device: str = "auto") -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.steps = 0
        self.peak_ram_gib: float | None = None
        self.ram_rise_gib: float | None = None
        self.peak_vram_allocated_gib: float | None = None
        self.peak_vram_reserved_gib: float | None = None
        self._stage: str | None = None
        self._began = self._border = 0.0
        self._ended: float | None = None
        self._paused = 0.0
        self._process = psutil.Process()
        self._peak_bytes = self._later_bytes = 0
        self._seen = (0, 0)  # bytes on MPS: the most that tensors took, and that the driver gave
        self._loaded_bytes: int | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory of the run", daemon=True)

    def __enter__(self) -> Self:
        if gpu := module_of(self.device):
            self._synchronize(gpu)
            # Which device the model will take is not always known yet.
            for index in range(gpu.device_count() if hasattr(gpu, "reset_peak_memory_stats") else 0):
                gpu.reset_peak_memory_stats(index)
        self._look()
        self._thread.start()
        self._began = self._border = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            # After a fault of the device synchronize fails again; the fault itself is what people must see.
            with suppress(*([RuntimeError] if error else [])):
                self._end_stage()
                if gpu := module_of(self.device):
                    allocated, reserved = self._seen
                    if hasattr(gpu, "max_memory_allocated"):
                        allocated, reserved = gpu.max_memory_allocated(self._index), gpu.max_memory_reserved(self._index)
                    self.peak_vram_allocated_gib, self.peak_vram_reserved_gib = allocated / GIB, reserved / GIB
        finally:
            self._ended = time.perf_counter()
            self._done.set()
            self._thread.join()
            self._look()
            self.peak_ram_gib = self._peak_bytes / GIB
            if self._loaded_bytes is not None:
                self.ram_rise_gib = (self._later_bytes - self._loaded_bytes) / GIB

    @property
    def total(self) -> float:
        """Wall seconds from entry to exit; before the exit, until now. 0 before entry."""
        if not self._began:
            return 0.0
        return (self._ended or time.perf_counter()) - self._began - self._paused

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time that passes in the block counts nowhere: the run waits for its turn on the device."""
        stage = self._stage
        self._end_stage()
        began = time.perf_counter()
        try:
            yield
        finally:
            self._border = time.perf_counter()
            self._paused += self._border - began
            self._stage = stage

    @property
    def seconds_per_step(self) -> float | None:
        """Wall seconds of denoising over its steps; None where no step was done."""
        return self.seconds.get("denoise", 0.0) / self.steps if self.steps else None

    def stage(self, name: str, total: int | None = None) -> None:
        """End the stage before, if any, and begin this one. What is measured once for many clips counts as loading."""
        self._end_stage()
        name = "load" if name == "calibrate" else name
        if name != "load" and self._loaded_bytes is None:
            trim()
            self._later_bytes, self._loaded_bytes = 0, self._look()
            self._border = time.perf_counter()
        self._stage = name
        self.seconds.setdefault(name, 0.0)

    def step(self, preview: Preview | None = None) -> None:
        """Count one step, if this is denoising."""
        self.steps += self._stage == "denoise"

    def record_fields(self) -> dict[str, Any]:
        """What was measured, by the names that the record of a run has for it."""
        return {
            "seconds": {**self.seconds, "total": self.total},
            "seconds_per_step": self.seconds_per_step,
            "peak_ram_gib": self.peak_ram_gib,
            "ram_rise_gib": self.ram_rise_gib,
            "peak_vram_allocated_gib": self.peak_vram_allocated_gib,
            "peak_vram_reserved_gib": self.peak_vram_reserved_gib,
        }

    def _end_stage(self) -> None:
        try:
            # Kernels run on after the call that began them: without this their time counts in a later stage.
            if gpu := module_of(self.device):
                self._synchronize(gpu)
        finally:
            now = time.perf_counter()
            if self._stage is not None:
                self.seconds[self._stage] += now - self._border
            self._stage, self._border = None, now
            self._look()

    @property
    def _index(self) -> str | None:
        return self.device if ":" in self.device else None  # None: torch's current device

    def _synchronize(self, gpu: Any) -> None:
        if self.device == "mps":
            gpu.synchronize()
        else:
            gpu.synchronize(self._index)

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self._look()

    def _look(self) -> int:
        resident = int(self._process.memory_info().rss)
        with self._lock:
            self._peak_bytes, self._later_bytes = max(self._peak_bytes, resident), max(self._later_bytes, resident)
            if self.device == "mps" and (gpu := module_of("mps")):
                now = gpu.current_allocated_memory(), gpu.driver_allocated_memory()
                self._seen = max(self._seen[0], now[0]), max(self._seen[1], now[1])
        return resident
