"""A sweep in a notebook: where it stands, live, with buttons to stop it; and its table, short."""

from __future__ import annotations

import html
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from i2v_lab.sweep.forecast import duration
from i2v_lab.sweep.standing import Standing, SweepSwitch

if TYPE_CHECKING:
    import pandas as pd

BUTTONS = True  # False where the notebook is executed with nobody before it
SHOW_SECONDS = 0.5  # between two updates


class LiveSweep(SweepSwitch):
    """Shows where a sweep stands below the cell of the notebook, and ends it when a button is pressed.

    The buttons need a front end whose messages reach the kernel while a cell runs (JupyterLab 4.4 or later with ipykernel
    7); elsewhere interrupt the kernel: the clip in the making is then recorded as stopped.
    """

    def __init__(self) -> None:
        super().__init__()
        self._box = _buttons(self) if BUTTONS else None
        self._handle = _display(_html(""), display_id=True)
        self._shown = 0.0

    def stands(self, standing: Standing) -> None:
        now = time.monotonic()
        if standing.over or now - self._shown >= SHOW_SECONDS:
            self._shown = now
            if self._handle is not None:
                self._handle.update(_html(as_html(standing)))
        if standing.over and self._box is not None:
            self._box.close()
            self._box = None
        super().stands(standing)


def _html(text: str) -> Any:
    import IPython.display as ipython

    show: Any = ipython.HTML
    return show(text)


def _display(thing: Any, **options: Any) -> Any:
    """IPython's display; returns a handle with `update` where `display_id` is given, None where no notebook shows it."""
    import IPython.display as ipython

    show: Any = ipython.display
    return show(thing, **options)


def _buttons(switch: SweepSwitch) -> Any:
    """Two buttons; None where there is no ipywidgets."""
    try:
        import ipywidgets
    except ImportError:
        return None
    cell, step = (ipywidgets.Button(description=text) for text in ("Stop after this cell", "Stop after this step"))
    cell.on_click(lambda _: switch.stop("cell"))
    step.on_click(lambda _: switch.stop("step"))
    box = ipywidgets.HBox([cell, step])
    _display(box)
    return box


def as_html(standing: Standing) -> str:
    """Where a sweep stands, as HTML: a bar and a line."""
    ended = standing.done + standing.failed
    bar = f'<progress value="{ended}" max="{max(standing.cells, 1)}" style="width:60%"></progress>'
    return f"<div>{bar}<br>{html.escape(as_text(standing))}</div>"


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
