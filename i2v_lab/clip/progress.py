"""How long work reports its progress: one interface, which models call and screens implement.

A model calls `progress.stage("denoise", total=50)` once and `progress.step(preview)` after each step. A listener may
raise `Stop` from any call: that is how a run is ended, and why it ends within one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from i2v_lab.errors import STOPPED_BY_HAND, Stop

if TYPE_CHECKING:
    import numpy as np

Preview: TypeAlias = "Callable[[], np.ndarray]"
"""A function that renders a small preview of the clip, uint8 RGB (F, h, w, 3). Nothing is computed until it is called."""


class Progress:
    """A listener that ignores everything; subclass it and override what you need."""

    def stage(self, name: str, total: int | None = None) -> None:
        """A stage begins (and the one before it ends).

        Args:
            name: load, encode, denoise, decode, write or measure.
            total: how many `step` calls will follow in this stage; None where that is not known.
        """

    def step(self, preview: Preview | None = None) -> None:
        """One step of the stage is done. `preview` is given where the model can show what it has so far."""

    def pulse(self) -> None:
        """Work goes on within a step; called some times a second, only so that a listener can raise Stop."""

    def waiting(self, line: str) -> None:
        """Another process has the device; `line` says which. Called several times a second."""


class Listeners(Progress):
    """Passes everything on to several listeners, in order."""

    def __init__(self, *listeners: Progress) -> None:
        self.listeners = listeners

    def stage(self, name: str, total: int | None = None) -> None:
        for listener in self.listeners:
            listener.stage(name, total)

    def step(self, preview: Preview | None = None) -> None:
        for listener in self.listeners:
            listener.step(preview)

    def pulse(self) -> None:
        for listener in self.listeners:
            listener.pulse()

    def waiting(self, line: str) -> None:
        for listener in self.listeners:
            listener.waiting(line)


class StopSwitch(Progress):
    """Ends the run that it listens to at its next event, once `stop()` was called (from any thread)."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def stop(self, reason: str = STOPPED_BY_HAND) -> None:
        self.reason = reason

    def _raise_if_asked(self, *heard: Any, **more: Any) -> None:
        if self.reason is not None:
            raise Stop(self.reason)

    stage = step = pulse = waiting = _raise_if_asked
