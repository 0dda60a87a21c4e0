"""Clips in step: a grid of clips as one self-contained page, which a notebook shows and a file keeps.

The page is player.js, player.css and the clips, inside one document that asks the network for nothing. In a notebook it
stands in a sandboxed frame over a plain table of posters: where frames and scripts are taken out, the posters stay.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab import ffmpeg, video
from i2v_lab.errors import ClipError
from i2v_lab.widgets.grid import Cell, Grid, Label, arrange, in_words

if TYPE_CHECKING:
    import pandas as pd

LIMIT_BYTES = 60_000_000  # of clips and posters in one page, as the base64 text that they are there
PROXY_SIDE = 416  # pixels
POSTER_SIDE = 320
PIXELS_IN_STEP = 4_500_000  # of all frames that are shown at once: beyond, browsers on a few cores fall out of step
_PLAYED = {"h264": "video/mp4", "vp8": "video/webm", "vp9": "video/webm", "av1": "video/mp4"}

_BORDER = "border:1px solid #8888;border-radius:6px;margin-bottom:12px"
_FRAME_STYLE = "position:absolute;top:0;left:0;width:100%;height:100%;border:0;background:Canvas"


@dataclass(frozen=True)
class Media:
    """A clip as a page holds it.

    Attributes:
        info: the clip's file.
        poster: JPEG of its first frame.
        data: the file's bytes; None where only the poster is shown.
        mime: of `data`.
        said: what is told over the picture.
    """

    info: video.VideoInfo
    poster: bytes
    data: bytes | None
    mime: str
    said: str = ""


@dataclass(frozen=True)
class ClipGrid:
    """A grid of clips that play in step: displays itself in a notebook; `page()` is a whole HTML document.

    Attributes:
        grid: which clip stands where.
        data: what player.js mounts; see there.
    """

    grid: Grid
    data: dict[str, Any]

    def page(self) -> str:
        """A self-contained HTML document: opens from disk, needs no network, and may use none."""
        found = "JSON.parse(document.getElementById('data').textContent)"
        script = f"{_asset('player.js')}\nmount(document.getElementById('player'), {found});\n"
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
            f"<title>Clips in step</title>\n<style>{_asset('player.css')}{style}</style>\n</head>\n<body>\n"
            f'<div id="player">{_poster_table(self.grid, self.data)}</div>\n'
            f'<script type="application/json" id="data">{_json(self.data)}</script>\n'
            f'<script type="module">{script}</script>\n</body>\n</html>\n'
        )

    def _repr_html_(self) -> str:
        frame = html.escape(self.page(), quote=True)
        return (
            f'<div style="position:relative;height:{self._height()}px;overflow:auto;{_BORDER}">{_poster_table(self.grid, self.data)}'
            f'<iframe sandbox="allow-scripts" allow="fullscreen" title="clips in step" style="{_FRAME_STYLE}" srcdoc="{frame}">'
            "</iframe></div>"
        )

    def __repr__(self) -> str:
        clips = sum("base64" in cell for cell in self.data["cells"])
        return f"ClipGrid({len(self.grid.rows)} x {len(self.grid.columns)}, {clips} clips)"

    def _height(self) -> int:
        """Pixels of the frame in a notebook of some 900 px: the whole grid, or what a screen shows; the rest scrolls."""
        shapes = [(cell["width"], cell["height"]) for cell in self.data["cells"] if cell.get("width")]
        many = min(len(self.grid.columns), 4) if self.grid.wraps else len(self.grid.columns)
        room = (860 - (0 if self.grid.wraps else 150)) / max(many, 1) - 10
        width = max(96, min(room, max([320, *(width for width, _ in shapes)]), 420))
        height = max((width * tall / wide for wide, tall in shapes), default=80)
        lines = -(-len(self.grid.columns) // many) if self.grid.wraps and many else len(self.grid.rows)
        caption = 60 if self.grid.wraps else 0
        notes = 24 * (len(self.data["notes"]) + bool(self.data["common"]))
        return round(min(max(130 + notes + lines * (height + caption + 12), 240), 720))


def clip_grid(
    table: pd.DataFrame,
    axes: Sequence[str],
    *,
    rows: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
    limit_bytes: int = LIMIT_BYTES,
) -> ClipGrid:
    """The clips of a sweep in a labelled grid, playing in step, with every file inside.

    Many or large clips are shown as proxies, 416 px at the longer side; what does not fit into `limit_bytes` is a poster,
    and then nothing. The page tells either. Cells without a clip show their status and reason.

    Args:
        table, axes, rows, columns: as `arrange` takes them.
        limit_bytes: of clips and posters in the page.

    Raises:
        InputError: an axis is not one of the table's columns.
    """
    grid = arrange(table, axes, rows=rows, columns=columns)
    media, notes = _collect(grid.cells, limit_bytes)
    shown = [found for found in media if isinstance(found, Media)]
    if len({found.info.frames / found.info.fps for found in shown if found.data}) > 1:
        notes.append("Clips differ in length: shorter ones hold their last frame until the longest ends.")
    data = {
        "rows": grid.rows,
        "columns": grid.columns,
        "wraps": grid.wraps,
        "common": grid.common,
        "notes": [*grid.notes, *notes],
        "standalone": True,
        "cells": [_cell_data(cell, found) for cell, found in zip(grid.cells, media, strict=True)],
    }
    return ClipGrid(grid, data)


def _collect(cells: Sequence[Cell], limit: int) -> tuple[list[Media | str], list[str]]:
    """For each cell its clip, or why there is none; and what to tell of the choice."""
    found = [_look(cell) for cell in cells]
    infos = [item.info for item in found if isinstance(item, Media)]
    whole = sum(info.file_bytes for info in infos) * 4 // 3
    pixels = sum(info.width * info.height for info in infos)
    left, proxies, posters, bare = limit, 0, 0, 0
    for place, item in enumerate(found):  # posters first: a cell without a clip should at least have its picture
        if isinstance(item, Media) and (left := left - len(item.poster) * 8 // 3) < 0:  # twice: without scripts it is shown too
            found[place] = f"not in this page, which holds {limit / 1e6:g} MB at most: {item.info.path.name}"
            bare += 1
    full, many = whole > left, pixels > PIXELS_IN_STEP
    for place, item in enumerate(found):
        if not isinstance(item, Media):
            continue
        large = full or (many and max(item.info.width, item.info.height) > PROXY_SIDE)
        data, copied = _bytes(item.info, large, left * 3 // 4)
        if data is None:
            found[place] = replace(item, said="poster only: the page is full")
            posters += 1
        else:
            left -= len(data) * 4 // 3
            proxies += copied
            found[place] = replace(item, data=data, mime="video/mp4" if copied else _mime(item.info))
    notes = []
    if proxies:
        notes.append(
            f"{proxies} of {len(infos)} clips are shown as copies, up to {PROXY_SIDE} px wide or high; the files are as made."
        )
    if posters + bare:
        notes.append(
            f"This page holds {limit / 1e6:g} MB of clips at most: {posters + bare} of {len(infos)} clips do not play here"
            + (f", and {bare} of them have no picture." if bare else "; their first frame is shown.")
        )
    return found, notes


def _look(cell: Cell) -> Media | str:
    """The cell's clip without its bytes, or why there is nothing to show."""
    if not cell.clip:
        return cell.reason
    path = Path(cell.clip)
    try:
        info = video.probe(path)
        return Media(info, _poster(path), None, "")
    except ClipError as error:
        return str(error)


def _bytes(info: video.VideoInfo, large: bool, room: int) -> tuple[bytes | None, bool]:
    """What a page holds of a clip in up to `room` bytes, None where that is too little; and whether it is a copy.

    A clip that browsers do not play is copied, and a large one where that makes it smaller.
    """
    played = info.codec in _PLAYED
    if room <= 0:
        return None, False
    if large or not played:
        data = _proxy(info)
        if not played or len(data) < info.file_bytes:
            return (data if len(data) <= room else None), True
    return (info.path.read_bytes() if info.file_bytes <= room else None), False


def _mime(info: video.VideoInfo) -> str:
    return "video/webm" if info.path.suffix == ".webm" else _PLAYED[info.codec]


def _fit(side: int) -> str:
    """FFmpeg's filter that brings the longer side down to `side` pixels; sides stay even."""
    return f"scale=w='min({side},iw)':h='min({side},ih)':force_original_aspect_ratio=decrease:force_divisible_by=2:flags=bicubic"


def _poster(path: Path) -> bytes:
    """JPEG of the first frame."""
    picture = ["-map", "0:v:0", "-frames:v", "1", "-vf", f"{_fit(POSTER_SIDE)},format=yuvj420p"]
    return ffmpeg.ask(path, [*picture, "-c:v", "mjpeg", "-q:v", "4", "-f", "image2pipe", "-"])


def _proxy(info: video.VideoInfo) -> bytes:
    """A small MP4 of the same frames at the same rate (a GIF's at its mean rate), quick to seek in."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "proxy.mp4"
        encode = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "26", "-g", "8", "-bf", "0", "-pix_fmt", "yuv420p"]
        # Frame n at n seconds over the rate, exactly: the base of times is a frame.
        rate, base = info.fps, f"{info.fps.denominator}/{info.fps.numerator}"
        regular = ["-vf", f"{_fit(PROXY_SIDE)},settb={base},setpts=N", "-fps_mode", "cfr", "-r", str(rate)]
        plain = ["-map_metadata", "-1", "-movflags", "+faststart", "-f", "mp4"]
        ffmpeg.ask(info.path, ["-map", "0:v:0", *regular, *encode, *plain, ffmpeg.url(out)])
        return out.read_bytes()


def _cell_data(cell: Cell, found: Media | str) -> dict[str, Any]:
    """The cell as player.js takes it."""
    data: dict[str, Any] = {
        "row": cell.row,
        "column": cell.column,
        "label": cell.label,
        "status": cell.status,
        "reason": cell.reason,
    }
    if isinstance(found, str):
        return data | {"reason": found, "status": "no clip" if cell.status == "done" else cell.status}
    info = found.info
    data |= {"width": info.width, "height": info.height, "frames": info.frames, "fps": float(info.fps), "said": found.said}
    data["poster"] = "data:image/jpeg;base64," + base64.b64encode(found.poster).decode()
    if found.data is not None:
        data |= {"mime": found.mime, "base64": base64.b64encode(found.data).decode()}
    return data


def _json(data: Any) -> str:
    """JSON that can stand in a script element: no </script> and no comment can begin in it."""
    text = json.dumps(data, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _poster_table(grid: Grid, data: dict[str, Any]) -> str:
    """The grid without scripts: a table of first frames."""
    cells = {(cell["row"], cell["column"]): cell for cell in data["cells"]}

    def label(pairs: Label) -> str:
        return "<br>".join(f"{html.escape(name)} <b>{html.escape(value)}</b>" for name, value in pairs)

    def content(cell: dict[str, Any] | None) -> str:
        if cell is None:
            return ""
        if "poster" in cell:
            return f'<img src="{cell["poster"]}" width="160" alt="{html.escape(in_words(cell["label"]), quote=True)}">'
        return f"<b>{html.escape(cell['status'].replace('_', ' '))}</b><br>{html.escape(cell['reason'])}"

    if grid.wraps:  # a list: four to a line
        places = [f"<td>{content(cells.get((0, index)))}<br>{label(head)}</td>" for index, head in enumerate(grid.columns)]
        lines = ["".join(places[start : start + 4]) for start in range(0, len(places), 4)]
    else:
        lines = ["<td></td>" + "".join(f"<th>{label(head)}</th>" for head in grid.columns)]
        for row, head in enumerate(grid.rows):
            found = "".join(f"<td>{content(cells.get((row, column)))}</td>" for column in range(len(grid.columns)))
            lines.append(f"<th>{label(head)}</th>{found}")
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


@cache
def _asset(name: str) -> str:
    return files("i2v_lab.widgets").joinpath(name).read_text(encoding="utf-8")
