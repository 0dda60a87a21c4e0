"""Work that follows the controls (crop, advice, forecast): the latest request alone, a moment later, in a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
PAUSE_SECONDS = 0.15  # so that a slider that moves does not ask at every pixel
PAUSES_MAX = 4  # requests that never pause are answered too


class Debounced(Generic[T]):
    """Does `work(what, is_last)` for the last `what` that was asked; `is_last()` says whether it still is the last."""

    def __init__(self, work: Callable[[T, Callable[[], bool]], None]) -> None:
        self._work = work
        self._lock = threading.Lock()
        self._wanted: list[T] = []
        self._asked = 0
        self._running = False
        self._wake = threading.Event()

    def ask(self, what: T) -> None:
        """Do it soon. An earlier request that was not begun is dropped."""
        with self._lock:
            self._asked += 1
            self._wanted = [what]
            self._wake.set()
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="studio debounced", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._wake.clear()
            for _ in range(PAUSES_MAX):  # until nothing was asked for so long
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
                log.exception("the work that follows a control failed")
