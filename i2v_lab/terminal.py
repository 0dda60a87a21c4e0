"""What the command line shows of a run: progress bars on standard error, Stop on Ctrl-C, a log file a start."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from i2v_lab.progress import Listeners, Preview, Progress, StopSwitch

if TYPE_CHECKING:
    from types import FrameType

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from i2v_lab.params import Advice
    from i2v_lab.record import RunRecord

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)


class StageBars(Progress):
    """A bar a stage, with steps and time left."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str, total: int | None = None) -> None:
        self.end()
        self._task = self.bars.add_task(name, total=total)

    def step(self, preview: Preview | None = None) -> None:
        if self._task is not None:
            self.bars.advance(self._task)

    def end(self) -> None:
        """The stage is done: its bar is full and stays."""
        if self._task is not None:
            task = self.bars.tasks[self.bars.task_ids.index(self._task)]
            self.bars.update(self._task, total=task.total or 1, completed=task.total or 1)


@contextmanager
def listening() -> Iterator[Progress]:
    """A listener for one run: bars where standard error is a terminal, and Stop at the first Ctrl-C or SIGTERM.

    The second Ctrl-C interrupts at once, as Python does.
    """
    switch = StopSwitch()

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        switch.stop("stopped by Ctrl-C" if number == signal.SIGINT else "stopped by SIGTERM")
        err.print("stopping after this step; once more stops at once", style="yellow")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if not err.is_terminal:
            yield switch
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (
            TextColumn("{task.description:8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=err) as bars:
            screen = StageBars(bars)
            yield Listeners(switch, screen)
            screen.end()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start_log(directory: Path) -> Path | None:
    """Log this start to a file of its own, made with its first line. Returns its path, or None where it cannot be written."""
    path = directory / f"i2v-lab_{datetime.now():%Y%m%d_%H%M%S}_{os.getpid()}.log"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, mode="x", encoding="utf-8", delay=False)
    except OSError as error:
        err.print(f"no log is written: {path}: {error.strerror}", style="yellow", markup=False)
        return None
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger("i2v_lab")
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    root.info("start: %s", " ".join(sys.argv[1:]))
    return path


def show_advice(found: list[Advice]) -> None:
    """Each warning on a line of standard error."""
    for advice in found:
        err.print(f"advice: {advice}", style="yellow", markup=False)


def show_record(record: RunRecord, directory: Path, *, found: bool = False) -> None:
    """One run for people: the clip and what it cost on standard output, or why there is none on standard error."""
    if record.status != "done":
        err.print(f"{record.status}: {record.reason}", style="red", markup=False)
        return
    out.print(str(directory / record.clip), markup=False)
    if found:
        err.print(f"made before, on {record.created:%Y-%m-%d %H:%M} UTC; --force makes it anew", markup=False)
    err.print(cost(record), markup=False)
    for note in record.notes:
        err.print(f"note: {note}", markup=False)


def cost(record: RunRecord) -> str:
    """Seconds a stage and peak memory of a run, in one line."""
    stages = ", ".join(f"{name} {value:.2f}" for name, value in record.seconds.items() if name != "total")
    peaks: Mapping[str, float | None] = {
        "VRAM allocated": record.peak_vram_allocated_gib,
        "VRAM reserved": record.peak_vram_reserved_gib,
        "RAM": record.peak_ram_gib,
    }
    memory = ", ".join(f"{name} {value:.2f} GiB" for name, value in peaks.items() if value is not None)
    return f"{record.seconds.get('total', 0):.2f} s ({stages}); peak {memory}; on {record.device_name}"
