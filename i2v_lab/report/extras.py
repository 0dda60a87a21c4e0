"""The rest of a report: the video of all clips, the table, the plan and the sweep file, folded where they are long."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from i2v_lab.report.mosaic import grid_video
from i2v_lab.report.notebook import FOLDER_VARIABLE
from i2v_lab.report.pieces import Piece, folded, scrolled, section
from i2v_lab.report.player.grid import text_of
from i2v_lab.report.words import Words, phrase, said

if TYPE_CHECKING:
    import pandas as pd

    from i2v_lab.sweep import Sweep, SweepPlan, SweepResult

VIDEO = "grid.mp4"
_ROWS = 12  # of a table that is not folded
_ROWS_MOST = 200  # that are shown at all
_LINES = 12  # of a sweep file that is not folded


def video(result: SweepResult, axes: Sequence[str]) -> Piece:
    """Make one video of all clips, grid.mp4 in the folder of the sweep; it is shown and linked. Without a clip nothing is made."""
    if "done" not in result.counts:
        return section("video.title", f"<p>{phrase('video.none').html()}</p>")
    path = result.folder / VIDEO
    grid_video(result.table(), list(axes), path)
    here = os.environ.get(FOLDER_VARIABLE) or "."  # links lead from the report's folder, or from the current one in a run by hand
    link = quote(Path(os.path.relpath(path, here)).as_posix())
    line = f'<p><a href="{link}">{VIDEO}</a>: {phrase("video.said").html()}</p>'
    return section(
        "video.title", line, f'<video class="i2v-video" src="{link}#t=0.01" controls loop muted preload="metadata"></video>'
    )


def short_table(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """Of the table of a sweep the columns that people look at first: cell, axes, status, seconds, memory, size, clip."""
    columns = ["cell", *axes, "status", "reason", "seconds_total", "seconds_per_step", "peak_vram_reserved_gib", "peak_ram_gib",
               "file_bytes", "clip"]  # fmt: skip
    short = table[columns].copy()
    short["clip"] = short["clip"].astype("string").str.rsplit("/", n=1).str[-1].fillna("")
    empty = [name for name in ("reason", "peak_vram_reserved_gib") if not any(map(text_of, short[name]))]
    return short.drop(columns=empty)


def table_piece(table: pd.DataFrame, axes: Sequence[str]) -> Piece:
    """The short table of a sweep."""
    return section("table.title", f"<p>{phrase('table.said').html()}</p>", _table(short_table(table, axes), len(table)))


def plan_piece(planned: SweepPlan, sweep: Sweep) -> Piece:
    """The plan of a sweep, and its file."""
    plan = planned.table.replace("", None).dropna(axis="columns", how="all")
    text = sweep.to_yaml()
    file = scrolled(f"<pre>{escape(text)}</pre>", phrase("file.title"))
    return section(
        "plan.title",
        f"<p>{said(lambda say: _states(planned, say)).html()}</p>",
        _table(plan, len(plan)),
        f"<h3>{phrase('file.title').html()}</h3><p>{phrase('file.said').html()}</p>",
        folded(phrase("file.show"), file, opened=text.count("\n") <= _LINES),
    )


def _states(planned: SweepPlan, say: Words) -> str:
    states = [say("plan.state", count=count, state=say(f"state.{state}")) for state, count in planned.counts.items()]
    return say("plan.states", cells=len(planned.cells), states=say("comma").join(states))


def _table(table: pd.DataFrame, rows: int) -> str:
    look: dict[str, Any] = {"index": False, "max_rows": _ROWS_MOST, "na_rep": "", "border": 0, "escape": True}
    shown = table.to_html(float_format=lambda value: f"{value:.3g}", **look)
    return folded(phrase("table.show", count=rows), scrolled(shown, phrase("table.title")), opened=rows <= _ROWS)
