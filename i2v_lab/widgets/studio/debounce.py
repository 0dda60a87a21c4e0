"""What follows the controls (crop, advice, plan): the latest of what was asked, a moment later, on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
PAUSE_SECONDS = 0.15  # so that a slider on its way does not ask at every pixel
PAUSES_MOST = 4  # and what asks without end is answered too


class Follower(Generic[T]):
    """Does `work(what, current)` for the last `what` that was asked; `current()` says whether it still is the last."""

    def __init__(self, work: Callable[[T, Callable[[], bool]], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._wanted: list[T] = []
        self._asked = 0
        self._running = False
        self._wake = threading.Event()

    def ask(self, what: T) -> None:
        """Do it soon; what was asked before and was not begun is dropped."""
        with self._lock:
            self._asked += 1
            self._wanted = [what]
            self._wake.set()
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="studio follower", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            for _ in range(PAUSES_MOST):  # until nothing was asked for so long
                if not self._wake.wait(PAUSE_SECONDS):
                    break
                self._wake.clear()
            with self._lock:
                if not self._wanted:
                    self._running = False
                    return
                (what,), number, self._wanted = self._wanted, self._asked, []
            try:
                self._work(what, lambda number=number: number == self._asked)  # type: ignore[misc]
            except Exception:
                log.exception("a studio could not follow its controls")
