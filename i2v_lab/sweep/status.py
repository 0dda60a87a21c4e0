"""How far a sweep or a batch is: SweepStatus for screens, SweepProgress for listeners, CellProgress for the loop over cells."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.cluster.place import WorkerState
from i2v_lab.errors import Stop
from i2v_lab.sweep.stop import SweepStop


@dataclass(frozen=True)
class SweepStatus:
    """How far a sweep is.

    Attributes:
        sweep: its id, which is the name of its folder; "" for a batch.
        cells: how many it has. to_run: how many of them this run makes. ran: how many of those have ended.
        done, failed: of all cells, how many have a clip, and how many ended without one.
        cell: the number of the cell that runs; 0 before the first. label: what sets it apart.
        stage, step, steps: of that cell; steps is None where it is not known.
        seconds_left: expected until the end; None where nothing is known yet.
        note: what it waits for, or how it ended.
        over: whether the run has ended.
        workers: of a cluster, what each is doing; then `cell` is the one that was begun last.
    """

    sweep: str
    cells: int
    to_run: int
    ran: int = 0
    done: int = 0
    failed: int = 0
    cell: int = 0
    label: str = ""
    stage: str = ""
    step: int = 0
    steps: int | None = None
    seconds_left: float | None = None
    note: str = ""
    over: bool = False
    workers: tuple[WorkerState, ...] = ()


class SweepProgress(Progress):
    """A listener to a sweep: it hears the stages and steps of each cell, and how far the sweep is.

    Raising Stop from `cell` ends the sweep before that cell; from `stage`, `step` or `updated` within this step.
    """

    def cell(self, status: SweepStatus) -> None:
        """A cell begins."""

    def updated(self, status: SweepStatus) -> None:
        """The status changed: called at every stage and step, and several times a second while waiting for a turn."""


class CellProgress(Progress):
    """Listens to the clips of a sweep: it keeps the status, checks for a stop, and passes everything on to the listener."""

    def __init__(self, listener: Progress, stop: SweepStop) -> None:
        self.listener, self.stop = listener, stop
        self.screen = listener if isinstance(listener, SweepProgress) else SweepProgress()
        self.begin(SweepStatus("", 0, 0), {}, None)

    def begin(self, status: SweepStatus, work: Mapping[int, float], expected: float | None) -> None:
        """Set what the run begins with (again, after a wait for its turn).

        Args:
            work: {number: of each cell that this run makes, in no unit}.
            expected: seconds for all of them; None: not known.
        """
        self.status, self.work, self.expected = status, work, expected
        self._total, self._ran = sum(work.values()), 0.0  # of the work
        self._began = time.monotonic()

    def cell(self, number: int, label: str) -> None:
        """A cell begins. Raises Stop where one was asked for."""
        if not self.status.cell:
            self._began = time.monotonic()
        self._set(cell=number, label=label, stage="", step=0, steps=None, note="")
        self.stop.check(between_cells=True)
        self.screen.cell(self.status)
        self._tell()

    def workers(self, states: tuple[WorkerState, ...]) -> None:
        """What each worker of a cluster is doing. Raises Stop where one was asked for."""
        self._tell(workers=states)

    def ended(self, number: int, ok: bool) -> None:
        """A cell has ended, with a clip or without."""
        status = self.status
        self._ran += self.work[number]
        self._set(ran=status.ran + 1, done=status.done + ok, failed=status.failed + (not ok), stage="", step=0)

    def waiting(self, line: str) -> None:
        """Another process has the device. Raises Stop where one was asked for."""
        self._set(note=line)
        self.stop.check(between_cells=True)
        self.listener.waiting(line)
        self._tell()

    def over(self, note: str) -> None:
        """The run has ended."""
        self._set(over=True, note=note, stage="", seconds_left=0.0, label="", workers=())
        self.stop.forget()
        with suppress(Stop):
            self.screen.updated(self.status)

    def stage(self, name: str, total: int | None = None) -> None:
        self.listener.stage(name, total)
        self._tell(stage=name, step=0, steps=total, note="")

    def step(self, preview: Preview | None = None) -> None:
        self.listener.step(preview)
        self._tell(step=self.status.step + 1)

    def pulse(self) -> None:
        self.listener.pulse()
        self.stop.check()

    def _set(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)

    def _tell(self, **changes: Any) -> None:
        self.stop.check()
        self._set(**changes, seconds_left=self._left())
        self.screen.updated(self.status)

    def _left(self) -> float | None:
        """Seconds left: by the pace so far once a cell is done, by what was measured before until then."""
        took = time.monotonic() - self._began
        status = self.status
        if not self._ran:
            return None if self.expected is None else max(0.0, self.expected / max(len(status.workers), 1) - took)
        share = sum(
            self.work.get(one.cell, 0.0) * one.step / one.steps
            for one in status.workers or (status,) if one.stage == "denoise" and one.steps
        )  # fmt: skip
        return took * (self._total - self._ran - share) / (self._ran + share)
