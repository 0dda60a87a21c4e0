"""Ctrl-C, SIGTERM and SIGHUP, from the first line of a command to its last.

Before a command begins its work, a signal ends it with one line. While it works, a signal asks for a stop (`stops`). After
that nothing is left to stop: signals are ignored, and the exit code says how the work ended.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Literal

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")
STOPPED = 130  # the exit code
_asked: list[str] = []  # the signals that came before the work began, by name


class Ended(BaseException):
    """A signal came before the work began, or where nothing is lost."""


def listen() -> None:
    """From now on a signal ends the command, wherever it is."""
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):  # nohup
            signal.signal(number, _end)
    # What is raised in a callback of C goes no further, and Python would print it. The stop is not forgotten: see `stops`.
    sys.unraisablehook = lambda about: None if about.exc_type is Ended else sys.__unraisablehook__(about)


def hang_up_terminates() -> None:
    """SIGHUP does what SIGTERM does, for a server that has its own handler of that; unless it is ignored (nohup)."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))


def ignore(*names: str) -> None:
    """From now on a signal changes nothing; these alone, where they are named."""
    for name in names or SIGNALS:
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_IGN)


def say(line: str) -> None:
    """A line on standard error, from a handler of a signal: printing may be what it has interrupted."""
    clear = "\r\x1b[2K" if os.isatty(2) else ""
    with suppress(OSError):  # the terminal is gone
        os.write(2, f"{clear}{line}\n".encode())


@contextmanager
def stops(
    ask: Callable[[Literal["cell", "step"], str], None], stages: Sequence[Literal["cell", "step"]] = ("cell", "step")
) -> Iterator[None]:
    """While the block runs a signal asks for a stop, as `stop_on_signals` says; afterwards signals are ignored."""
    from i2v_lab.sweep.stop import stop_on_signals

    with stop_on_signals(ask, stages, say, after=signal.SIG_IGN):
        if _asked:
            ask("step", f"stopped by {_asked[0]}")
        yield


def _end(number: int, frame: FrameType | None) -> Any:
    _asked.append("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)
    raise Ended
