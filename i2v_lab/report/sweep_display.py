"""A sweep in a notebook: where it stands, live; and its table, short."""

from __future__ import annotations

import html
import signal
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from i2v_lab.sweep.planning import duration
from i2v_lab.sweep.progress import Standing, SweepSwitch

if TYPE_CHECKING:
    import pandas as pd

SHOW_SECONDS = 0.5  # between two updates


class LiveSweep(SweepSwitch):
    """Shows where a sweep stands below the cell of the notebook; interrupting the kernel ends it after this step.

    The clip in the making is then recorded as stopped, the cell ends as usual, and the cells after it show what there is. A
    second interrupt ends the cell at once. It is the one way that works in every front end: while a cell runs, a button's
    message waits for it to end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._handle = _display(_html(""), display_id=True)
        self._shown = 0.0
        self._before: Any = None  # who heard of an interrupt before

    def stands(self, standing: Standing) -> None:
        now = time.monotonic()
        if standing.over or now - self._shown >= SHOW_SECONDS:
            self._shown = now
            if self._handle is not None:
                self._handle.update(_html(as_html(standing)))
        self._listen(not standing.over)
        super().stands(standing)

    def _listen(self, on: bool) -> None:
        """Hear of interrupts, or leave them to who heard of them before."""
        if on == (self._before is not None) or threading.current_thread() is not threading.main_thread():
            return
        before = signal.signal(signal.SIGINT, self._interrupted if on else self._before)
        self._before = before if on else None

    def _interrupted(self, *_: object) -> None:
        self._listen(False)
        self.stop("step", "the kernel was interrupted")


def _html(text: str) -> Any:
    import IPython.display as ipython

    show: Any = ipython.HTML
    return show(text)


def _display(thing: Any, **options: Any) -> Any:
    """IPython's display; returns a handle with `update` where `display_id` is given, None where no notebook shows it."""
    import IPython.display as ipython

    show: Any = ipython.display
    return show(thing, **options)


def as_html(standing: Standing) -> str:
    """Where a sweep stands, as HTML: a bar and a line, and while it runs how to end it."""
    ended = standing.done + standing.failed
    bar = f'<progress value="{ended}" max="{max(standing.cells, 1)}" style="width:60%"></progress>'
    hint = "" if standing.over else "<br><small>To stop, interrupt the kernel (■): what is finished stays.</small>"
    return f"<div>{bar}<br>{html.escape(as_text(standing))}{hint}</div>"


def as_text(standing: Standing) -> str:
    """Where a sweep stands, in a line: `5 of 24 done · cell 6: guidance_scale 9 · denoise 12/50 · about 3 min left`."""
    parts = [f"{standing.done} of {standing.cells} done" + (f", {standing.failed} without a clip" if standing.failed else "")]
    if standing.over:
        return " · ".join([*parts, standing.note] if standing.note != "over" else parts)
    if standing.note:
        parts.append(standing.note)
    elif standing.cell:
        parts.append(f"cell {standing.cell}: {standing.label}")
        parts.append(f"{standing.stage} {standing.step}/{standing.steps}" if standing.steps else standing.stage)
    if standing.seconds_left is not None:
        parts.append(f"about {duration(standing.seconds_left)} left")
    return " · ".join(part for part in parts if part)


def short_table(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Of the table of a sweep the columns that people look at first: cell, axes, status, seconds, memory, size, clip."""
    columns = ["cell", *axes, "status", "reason", "seconds_total", "seconds_per_step", "peak_vram_reserved_gib", "peak_ram_gib",
               "file_bytes", "clip"]  # fmt: skip
    short = table[columns].copy()
    short["clip"] = short["clip"].astype("string").str.rsplit("/", n=1).str[-1].fillna("")
    empty = [name for name in ("reason", "peak_vram_reserved_gib") if not short[name].fillna("").astype(bool).any()]
    return short.drop(columns=empty)
