"""A sweep in a notebook: its status, updated while it runs."""

from __future__ import annotations

import html
import os
import time
from typing import Any

from i2v_lab.cluster import WorkerState
from i2v_lab.cost.timing import duration
from i2v_lab.report.notebook import FOLDER_VARIABLE
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, SweepProgress, SweepResult, SweepStatus, SweepStop, run_sweep
from i2v_lab.sweep.stop import stop_on_signals
from i2v_lab.sweep.tune import Tune, TuneResult, run_tune

SHOW_SECONDS = 0.5  # between two updates


def run_in_cell(sweep: Sweep, store: Store, *, settings: Settings | None = None, retry: str = "") -> SweepResult:
    """Run a sweep and show its status below the cell of the notebook. Interrupting the kernel ends it after this step.

    The clip in the making is then recorded as stopped, the cell ends as usual, and the cells after it show what there is. A
    second interrupt ends the cell at once. An interrupt works in every front end, where the message of a button would wait
    until the cell ends.

    Args: as run_sweep.
    """
    stop = SweepStop()
    with stop_on_signals(stop.ask, ["step"], interrupted="the kernel was interrupted"):
        return run_sweep(sweep, store, settings=settings, progress=SweepDisplay(), stop=stop, retry=retry)


def tune_in_cell(tune: Tune, store: Store, *, settings: Settings | None = None, make: bool = True) -> TuneResult:
    """As `run_in_cell`, of a tune; `make` as for run_tune."""
    stop = SweepStop()
    with stop_on_signals(stop.ask, ["step"], interrupted="the kernel was interrupted"):
        return run_tune(tune, store, settings=settings, progress=SweepDisplay(), stop=stop, make=make)


class SweepDisplay(SweepProgress):
    """Shows the status of a sweep below the cell of the notebook."""

    def __init__(self) -> None:
        import IPython.display as ipython

        self._ipython: Any = ipython
        self._handle = self._ipython.display(self._ipython.HTML(""), display_id=True)  # None where no notebook shows it
        self._shown = 0.0
        self._quiet = FOLDER_VARIABLE in os.environ  # it is a report that is executed: nobody looks

    def updated(self, status: SweepStatus) -> None:
        now = time.monotonic()
        if self._handle is not None and (status.over or (now - self._shown >= SHOW_SECONDS and not self._quiet)):
            self._shown = now
            self._handle.update(self._ipython.HTML(as_html(status)))


def as_html(status: SweepStatus) -> str:
    """The status of a sweep as HTML: while it runs a bar, a line, and how to end it; at the end the line alone."""
    line = html.escape(as_text(status))
    if status.over:
        return f"<div>{line}</div>"
    bar = f'<progress value="{status.done + status.failed}" max="{max(status.cells, 1)}" style="width:60%"></progress>'
    line += "".join(f"<br>{html.escape(_worker(one))}" for one in status.workers)
    return f"<div>{bar}<br>{line}<br><small>To stop, interrupt the kernel (■): what is finished stays.</small></div>"


def as_text(status: SweepStatus) -> str:
    """The status of a sweep in a line: `5 of 24 done · cell 6: guidance_scale 9 · denoise 12/50 · about 3 min left`."""
    parts = [f"{status.done} of {status.cells} done" + (f", {status.failed} without a clip" if status.failed else "")]
    if status.over:
        return " · ".join([*parts, status.note] if status.note != "over" else parts)
    if status.note:
        parts.append(status.note)
    elif status.workers:
        parts.append(f"{sum(one.cell > 0 for one in status.workers)} of {len(status.workers)} workers make a clip")
    elif status.cell:
        parts.append(f"cell {status.cell}: {status.label}")
        parts.append(f"{status.stage} {status.step}/{status.steps}" if status.steps else status.stage)
    if status.seconds_left is not None:
        parts.append(f"about {duration(status.seconds_left)} left")
    return " · ".join(part for part in parts if part)


def _worker(one: WorkerState) -> str:
    """What a worker of a cluster is doing, in a line."""
    doing = f"cell {one.cell}: {one.label}" if one.cell else "nothing to do"
    step = f"{one.stage} {one.step}/{one.steps}" if one.steps else one.stage
    return " · ".join(part for part in (f"{one.host} {one.device}", doing, step, one.note) if part)
