"""SweepStop: the one way to end a sweep or a batch early, whether Ctrl-C, a button or another process asks for it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Literal

import psutil

from i2v_lab.errors import STOPPED_BY_HAND, Stop
from i2v_lab.portable import write_whole

After = Literal["", "cell", "step"]
STOP_FILE = "stop"
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
LOOK_SECONDS = 0.2  # at least between two looks at the stop file while a clip is made


class SweepStop:
    """A request to stop after this cell or after this step. The loop over cells checks it before each cell and at each step.

    Attributes:
        after: what was asked: "cell", "step", or "" for nothing yet.
        reason: why, for the record of a clip that is cut short.
        folder: the folder of the sweep. Another process may write a file `stop` into it, which says `cell` or `step`.
    """

    def __init__(self) -> None:
        self.after: After = ""
        self.reason = ""
        self.folder: Path | None = None
        self._looked = 0.0

    def ask(self, after: Literal["cell", "step"] = "step", reason: str = STOPPED_BY_HAND) -> None:
        """Stop after this cell or after this step. Any thread and any signal handler may ask; "step" is never taken back."""
        if self.after != "step":
            self.after, self.reason = after, reason

    def check(self, *, between_cells: bool = False) -> None:
        """Raises Stop where the work must end here."""
        now = time.monotonic()
        if between_cells or now - self._looked >= LOOK_SECONDS:
            self._looked = now
            asked = self._in_file()
            if asked in ("cell", "step"):
                self.ask("step" if asked == "step" else "cell")
        if self.after == "step" or (self.after and between_cells):
            raise Stop(self.reason)

    def watch(self, folder: Path) -> None:
        """From now on the file `stop` in this folder counts. One that is older than this process asked another one."""
        self.folder = folder
        with suppress(OSError):
            if (folder / STOP_FILE).stat().st_mtime < psutil.Process().create_time():
                (folder / STOP_FILE).unlink()

    def forget(self) -> None:
        """The run is over: the file that asked it to stop is removed."""
        if self.folder:
            with suppress(OSError):
                (self.folder / STOP_FILE).unlink(missing_ok=True)

    def _in_file(self) -> str:
        with suppress(OSError):
            return (self.folder / STOP_FILE).read_text(encoding="utf-8").strip() if self.folder else ""
        return ""


def ask_to_stop(folder: Path, after: Literal["cell", "step"]) -> None:
    """Ask the process that runs the sweep of a folder to stop: after this cell, or after this step."""
    write_whole(folder / STOP_FILE, after)


@contextmanager
def stop_on_signals(
    ask: Callable[[Literal["cell", "step"], str], None],
    stages: Sequence[Literal["cell", "step"]] = ("cell", "step"),
    say: Callable[[str], None] = lambda text: None,
    interrupted: str = "stopped by Ctrl-C",
    after: signal.Handlers | None = None,
) -> Iterator[None]:
    """While the block runs, Ctrl-C asks for the first of `stages`, Ctrl-C again for the next, and once more interrupts at once.

    SIGTERM and SIGHUP ask to stop after this step. In a thread other than the main one, which gets no signals, nothing is done.

    Args:
        ask: is told after what to stop, and why.
        say: gets a line for the user.
        interrupted: the reason that Ctrl-C gives.
        after: what a signal does after the block; None: the same as before it.
    """
    left = list(stages)

    def hear(number: int, frame: FrameType | None) -> None:
        if not left:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            place = left.pop(0)
        else:
            place = "step"
            left.clear()
        ask(place, interrupted if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}")
        what = f"stops after this {left[0]}" if left else "stops at once"
        say(f"stopping after this {place}; once more {what}")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {getattr(signal, name): signal.getsignal(getattr(signal, name)) for name in SIGNALS if hasattr(signal, name)}
    heard = [number for number, handler in found.items() if number == signal.SIGINT or handler != signal.SIG_IGN]  # nohup
    for number in heard:
        signal.signal(number, hear)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, found[number] if after is None else after)
