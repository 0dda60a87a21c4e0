"""Where a sweep stands while it runs: what screens show, what other processes read, and how a sweep is asked to stop."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.errors import Stop

PROGRESS_FILE = "progress.json"
STOP_FILE = "stop"
WRITE_SECONDS = 0.25  # between two writes of PROGRESS_FILE


@dataclass(frozen=True)
class Standing:
    """Where a sweep stands.

    Attributes:
        sweep: its id, which is the name of its folder.
        cells: how many it has. to_run: how many of them this run takes up. ran: how many of those have ended.
        done, failed: of all cells, how many have a clip, and how many ended without one.
        cell: the number of the cell that runs; 0 before the first. label: what sets it apart.
        stage, step, steps: of that cell; steps is None where it is not known.
        seconds_left: expected until the end; None where nothing is known yet.
        note: what it waits for, or how it ended.
        over: whether the run has ended.
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


class SweepProgress(Progress):
    """A listener to a sweep: it hears the stages and steps of each cell, and where the sweep stands.

    Raising Stop from `cell` ends the sweep before that cell; from `stage`, `step` or `stands` within this step.
    """

    def cell(self, standing: Standing) -> None:
        """A cell begins."""

    def stands(self, standing: Standing) -> None:
        """Something has changed: called at every stage and step, and several times a second while waiting for a turn."""


class SweepSwitch(SweepProgress):
    """Ends the sweep that it listens to, once asked (from any thread): after this cell, or after this step."""

    def __init__(self) -> None:
        self.after: Literal["", "cell", "step"] = ""
        self.reason = "stopped by hand"

    def stop(self, after: Literal["cell", "step"] = "step", reason: str = "stopped by hand") -> None:
        self.after, self.reason = after, reason

    def cell(self, standing: Standing) -> None:
        if self.after:
            raise Stop(self.reason)

    def stands(self, standing: Standing) -> None:
        if self.after == "step":
            raise Stop(self.reason)


class Watch(Progress):
    """Listens to the runs of a sweep, keeps its standing, writes it beside the report, and passes everything on.

    The sweep may also be stopped from another process: by a file `stop` in its folder that says `cell` or `step`.
    """

    def __init__(self, standing: Standing, folder: Path, listener: Progress, work: list[float], expected: float | None) -> None:
        """
        Args:
            work: of each cell that this run takes up, in no unit.
            expected: seconds for all of them; None: not known.
        """
        self.folder, self.listener = folder, listener
        self.screen = listener if isinstance(listener, SweepProgress) else None
        self._written = 0.0
        self.begin(standing, work, expected)
        with suppress(OSError):  # what was asked of a process that was killed is not asked of this one
            if (folder / STOP_FILE).stat().st_mtime < psutil.Process().create_time():
                (folder / STOP_FILE).unlink()

    def begin(self, standing: Standing, work: list[float], expected: float | None) -> None:
        """Set what the run begins with (again, after a wait for its turn)."""
        self.standing, self.work, self.expected = standing, work, expected
        self._began = time.monotonic()

    def cell(self, number: int, label: str) -> None:
        """A cell begins. Raises Stop where one was asked for."""
        if self.standing.ran == 0:
            self._began = time.monotonic()
        self._set(cell=number, label=label, stage="", step=0, steps=None, note="")
        self._look_for_stop("cell", "step")
        if self.screen:
            self.screen.cell(self.standing)
        self._tell()

    def ended(self, status: str) -> None:
        """The cell has ended so."""
        ok = status == "done"
        self._set(ran=self.standing.ran + 1, done=self.standing.done + ok, failed=self.standing.failed + (not ok), stage="", step=0)

    def wait(self, text: str) -> None:
        """Another sweep has its turn. Raises Stop where one was asked for."""
        self._set(note=text)
        self._look_for_stop("cell", "step")
        self.listener.step()
        self._tell()

    def over(self, note: str) -> None:
        """The run has ended."""
        self._set(over=True, note=note, stage="", seconds_left=0.0, label="")
        if self._asked():
            with suppress(OSError):
                (self.folder / STOP_FILE).unlink(missing_ok=True)
        self._write()
        if self.screen:
            with suppress(Stop):
                self.screen.stands(self.standing)

    def stage(self, name: str, total: int | None = None) -> None:
        self._set(stage=name, step=0, steps=total)
        self.listener.stage(name, total)
        self._tell()

    def step(self, preview: Preview | None = None) -> None:
        self._set(step=self.standing.step + 1)
        self.listener.step(preview)
        self._tell()

    def _set(self, **changes: Any) -> None:
        self.standing = replace(self.standing, **changes)

    def _tell(self) -> None:
        self._look_for_stop("step")
        now = time.monotonic()
        if now - self._written >= WRITE_SECONDS:
            self._set(seconds_left=self._left(now))
            self._write()
        if self.screen:
            self.screen.stands(self.standing)

    def _left(self, now: float) -> float | None:
        """Seconds left: by the pace so far once a cell is done, by what was measured before until then."""
        ran = self.standing.ran
        todo = sum(self.work[ran:])
        if ran and (finished := sum(self.work[:ran])):
            share = 0.0
            if self.standing.stage == "denoise" and self.standing.steps and ran < len(self.work):
                share = self.work[ran] * self.standing.step / self.standing.steps
            return (now - self._began) * (todo - share) / (finished + share)
        return None if self.expected is None else max(0.0, self.expected - (now - self._began))

    def _look_for_stop(self, *wanted: str) -> None:
        if self._asked() in wanted:
            raise Stop("stopped by hand")

    def _asked(self) -> str:
        """What the stop file asks of this process: cell, step or nothing.

        Two processes may share the folder, one of them waiting: a file with a number is for that process and its children.
        """
        try:
            after, _, asker = (self.folder / STOP_FILE).read_text(encoding="utf-8").strip().partition(" ")
        except OSError:
            return ""
        return after if not asker or (asker.isdigit() and int(asker) in _family()) else ""

    def _write(self) -> None:
        self._written = time.monotonic()
        part = self.folder / f".{PROGRESS_FILE}.{os.getpid()}"
        with suppress(OSError):  # a full disk is told by the run, not by this
            part.write_text(json.dumps(asdict(self.standing)), encoding="utf-8")
            part.replace(self.folder / PROGRESS_FILE)


def _family() -> set[int]:
    """This process and those that started it, by number."""
    process = psutil.Process()
    return {process.pid, *(parent.pid for parent in process.parents())}


def read_standing(folder: Path) -> Standing | None:
    """Where the sweep of a folder stands, as another process wrote it; None where it has not begun."""
    try:
        return Standing(**json.loads((folder / PROGRESS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def ask_to_stop(folder: Path, after: Literal["cell", "step"]) -> None:
    """Ask this process, or the child of it that runs the sweep of a folder, to stop: after this cell, or after this step."""
    part = folder / f".{STOP_FILE}.{os.getpid()}"
    part.write_text(f"{after} {os.getpid()}", encoding="utf-8")
    part.replace(folder / STOP_FILE)
