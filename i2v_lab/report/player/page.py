"""A grid of clips in step as one self-contained page, for a notebook or for a file.

The page holds the player's script and style and the clips, and uses no network. In a notebook it is in a sandboxed frame over
a plain table of posters: where a viewer removes frames and scripts, the posters stay.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from i2v_lab.language import LANGUAGE_CSS
from i2v_lab.report.pieces import framed
from i2v_lab.report.player.assets import joined, player_script, said, texts
from i2v_lab.report.player.facts import BestIs, axes_data, check_best, number_columns, numbers_of
from i2v_lab.report.player.grid import Grid, GridCell, Label, arrange, in_words
from i2v_lab.report.player.media import LIMIT_BYTES, PROXY_SIDE, Media, collect
from i2v_lab.report.player.scripts import add_scripts
from i2v_lab.report.words import phrase
from i2v_lab.sweep.prices import references

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LIMIT_BYTES", "PROXY_SIDE", "ClipGrid", "clip_grid"]

# The stills are for viewers that remove frames and styles, and for paper.
_FRAME_CSS = (
    ".i2v-frame{container-type:inline-size;border:1px solid #8888;border-radius:6px;margin:12px 0;overflow:hidden}"
    ".i2v-frame iframe{display:block;width:100%;border:0;background:Canvas}.i2v-stills{display:none}"
    "@media print{.i2v-frame{display:none}.i2v-stills{display:block}.i2v-stills p{display:none}}"
)


@dataclass(frozen=True)
class ClipGrid:
    """A grid of clips that play in step. A notebook displays it; `page()` is a whole HTML document.

    Attributes:
        grid: the place of each clip.
        data: what player.js mounts; described there.
    """

    grid: Grid
    data: dict[str, Any]

    def page(self) -> str:
        """A self-contained HTML document. It opens from disk and may use no network."""
        found = "JSON.parse(document.getElementById('data').textContent)"
        script = f"{player_script()}\nmount(document.getElementById('player'), {found});\n"
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = (
            f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
            "img-src data: blob:; media-src data: blob:; base-uri 'none'; form-action 'none'"
        )
        style = "html,body{margin:0;height:100%}#player{height:100vh}"
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark">\n'
            f"<title>Clips in step</title>\n<style>{joined('player.css')}{style}{LANGUAGE_CSS}</style>\n</head>\n<body>\n"
            f'<div id="player">{poster_table(self.grid, self.data)}</div>\n'
            f'<script type="application/json" id="data">{_json(self.data)}</script>\n'
            f'<script type="module">{script}</script>\n</body>\n</html>\n'
        )

    def _repr_html_(self) -> str:
        frame = html.escape(self.page(), quote=True)
        height = height_of(self.grid, self.data)
        return framed(
            f'<style>{_FRAME_CSS}</style><div class="i2v-frame"><iframe sandbox="allow-scripts" allow="fullscreen" title="clips in step" '
            f'style="height:{height}" srcdoc="{frame}"></iframe></div>'
            f'<div class="i2v-stills"><p>{phrase("untrusted").html()}</p>{poster_table(self.grid, self.data)}</div>'
        )

    def __repr__(self) -> str:
        clips = sum("base64" in cell for cell in self.data["cells"])
        return f"ClipGrid({len(self.grid.rows)} x {len(self.grid.columns)}, {clips} clips)"


def clip_grid(
    table: pd.DataFrame,
    axes: Sequence[str],
    *,
    rows: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
    limit_bytes: int = LIMIT_BYTES,
    best: str = "",
    best_is: BestIs | None = None,
    reference: Mapping[str, Any] | None = None,
) -> ClipGrid:
    """The clips of a sweep in a labelled grid, playing in step, with every file inside.

    Many or large clips are shown as copies, 416 px at the longer side. A clip that does not fit into `limit_bytes` is shown
    by its first frame, and if that does not fit either, not at all; the page says so. Cells without a clip show their status
    and reason.

    Args:
        table, axes, rows, columns: as `arrange` takes them.
        limit_bytes: of clips and posters in the page.
        best: a column of numbers, or a metric without its metric_; the clip with the best value is marked.
        best_is: whether its lowest or highest value is the best; by default that of the metric, and the lowest cost.
        reference: {axis: value} of the clips to compare with; by default those without a lever and with the most steps.

    Raises:
        InputError: an axis is not one of the table's columns, `best` is no column of numbers, or no clip is such a reference.
    """
    grid = arrange(table, axes, rows=rows, columns=columns)
    marked = check_best(table, best, best_is)
    media, notes = collect(grid.cells, limit_bytes)
    data = player_data(table, axes, grid, media, notes, marked, reference)
    for cell, found in zip(data["cells"], media, strict=True):
        if isinstance(found, Media) and found.data is not None:
            cell |= {"mime": found.mime, "base64": base64.b64encode(found.data).decode()}
    add_scripts(data, grid.cells)
    return ClipGrid(grid, data | {"standalone": True})


def player_data(
    table: pd.DataFrame,
    axes: Sequence[str],
    grid: Grid,
    media: Sequence[Media | str],
    notes: Sequence[Any],
    best: dict[str, str] | None = None,
    reference: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What player.js mounts, without the bytes of the clips. `media` are those of the grid's cells, in order."""
    numbers = number_columns(table)
    cells = [_cell_data(cell, found) for cell, found in zip(grid.cells, media, strict=True)]
    against = reference_cells(grid.cells, axes, reference or {})
    for number, cell in enumerate(cells):
        cell |= {"number": number, "values": numbers_of(grid.cells[number].run, numbers), "reference": against[number]}
    remarks = [*grid.notes, *notes]
    if len({cell["frames"] / cell["fps"] for cell in cells if "fps" in cell}) > 1:
        remarks.append(said("lengths"))
    return {
        "rows": grid.rows,
        "columns": grid.columns,
        "wraps": grid.wraps,
        "common": grid.common,
        "notes": remarks,
        "axes": axes_data(table, axes),
        "fields": numbers,
        "best": best,
        "cells": cells,
    }


def reference_cells(cells: Sequence[GridCell], axes: Sequence[str], reference: Mapping[str, Any]) -> list[int | None]:
    """The number of the cell that each is compared with, as in the prices of a sweep; None where there is none, or it is the cell itself."""
    import pandas as pd

    known = set[str]().union(*(cell.run for cell in cells))
    if not known.issuperset((*axes, *reference, "status", "clip", "num_inference_steps")):  # files that carry no params
        return [None] * len(cells)
    found = references(pd.DataFrame([cell.run for cell in cells]), axes, reference)
    return [None if other == number else other for number, other in enumerate(found)]


def height_of(grid: Grid, data: dict[str, Any]) -> str:
    """The height of the frame, as CSS: that of the whole grid, whose clips are as large as the frame's width allows; at most the
    window's, where the grid alone scrolls.
    """
    shapes = [(cell["width"], cell["height"]) for cell in data["cells"] if cell.get("width")]
    many = max(min(len(grid.columns), 4) if grid.wraps else len(grid.columns), 1)
    lines = -(-len(grid.columns) // many) if grid.wraps else len(grid.rows)
    widest = min(max([320, *(width for width, _ in shapes)]), 420)
    shape = max((tall / wide for wide, tall in shapes), default=0.3)
    beside = 24 + 10 * many + (0 if grid.wraps else 110)  # margins, gaps, the names of the rows
    width = f"clamp(96px,(100cqw - {beside}px)/{many},{widest}px)"
    below = 12 + (60 if grid.wraps else 0)
    notes = 24 * (len(data["notes"]) + bool(data["common"])) + 46 * (len(data["cells"]) > 1)
    bars = f"{130 + notes + lines * below}px + max(0px,(900px - 100cqw)*0.3)"  # which take more lines on a narrow page
    return f"min(max(240px,{bars} + {lines * shape:.3f}*{width}),max(92vh,420px))"


def _cell_data(cell: GridCell, found: Media | str) -> dict[str, Any]:
    """The cell as player.js takes it."""
    data: dict[str, Any] = {
        "row": cell.row,
        "column": cell.column,
        "label": cell.label,
        "status": cell.status,
        "reason": cell.reason,
    }
    if isinstance(found, str):
        reason = found or (said("gone") if cell.status == "done" else "")
        return data | {"reason": reason, "status": "no clip" if cell.status == "done" else cell.status}
    info = found.info
    data |= {"width": info.width, "height": info.height, "frames": info.frames, "fps": float(info.fps)}
    data |= {"said": found.said, "kind": found.kind}
    data["poster"] = "data:image/jpeg;base64," + base64.b64encode(found.poster).decode()
    return data


def _json(data: Any) -> str:
    """JSON that can stand in a script element: no </script> and no comment can begin in it."""
    text = json.dumps(data, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def poster_table(grid: Grid, data: dict[str, Any]) -> str:
    """The grid without scripts: a table of first frames."""
    cells = {(cell["row"], cell["column"]): cell for cell in data["cells"]}

    def label(pairs: Label) -> str:
        return "<br>".join(f"{html.escape(name)} <b>{html.escape(value)}</b>" for name, value in pairs)

    def content(cell: dict[str, Any] | None) -> str:
        if cell is None:
            return ""
        if "poster" in cell:
            return f'<img src="{cell["poster"]}" width="160" alt="{html.escape(in_words(cell["label"]), quote=True)}">'
        status, reason = f"status_{cell['status'].replace(' ', '_')}", cell["reason"]
        said = "<br>".join(map(html.escape, reason if isinstance(reason, list) else [reason]))
        return f"<b>{texts.both(status) if status in texts else html.escape(cell['status'])}</b><br>{said}"

    if grid.wraps:  # a list: four to a line
        places = [f"<td>{content(cells.get((0, index)))}<br>{label(head)}</td>" for index, head in enumerate(grid.columns)]
        lines = ["".join(places[start : start + 4]) for start in range(0, len(places), 4)]
    else:
        lines = ["<td></td>" + "".join(f"<th>{label(head)}</th>" for head in grid.columns)]
        for row, head in enumerate(grid.rows):
            found = "".join(f"<td>{content(cells.get((row, column)))}</td>" for column in range(len(grid.columns)))
            lines.append(f"<th>{label(head)}</th>{found}")
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"
