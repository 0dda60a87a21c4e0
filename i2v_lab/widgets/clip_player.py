"""The player as a notebook widget: first frames at once, and each clip from the kernel when it comes into view.

Clips are sent over the kernel's connection, one answer each, so the server's folders and addresses do not matter: it works the
same in JupyterLab, Notebook, VS Code and Voilà. A page keeps up to 256 MB of clips that left the view. A table of first frames
comes with the widget, for pages where scripts may not run.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from i2v_lab.errors import I2VLabError
from i2v_lab.report.player.assets import joined, player_script, said
from i2v_lab.report.player.grid import GridCell, text_of
from i2v_lab.report.player.media import PIXELS_IN_STEP, PROXY_SIDE, Media, bytes_of, foreign_notes, glance, look_at_all, mime_of
from i2v_lab.report.player.page import height_of, player_data, poster_table
from i2v_lab.report.player.view import View, clip_view

if TYPE_CHECKING:
    import pandas as pd

    from i2v_lab.store.opinions import Opinions

CLIP_LIMIT_BYTES = 32_000_000  # a larger file is sent as a small copy
POSTERS_LIMIT_BYTES = 8_000_000  # of first frames that are sent before any clip


class ClipPlayer(anywidget.AnyWidget):  # type: ignore[misc]
    """Clips in step, in a notebook.

    Attributes:
        view: what is shown; see `View`.
        opinions: keeps stars and notes; None: none can be given.

    The kernel sends the clips, and does one thing at a time: while a cell runs, clips that were not sent yet wait.
    """

    _esm = player_script() + "\n" + joined("clip_player.js", package="i2v_lab.widgets")
    _css = joined("player.css")
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, view: View, opinions: Opinions | None = None, **more: Any) -> None:
        self.opinions = opinions
        self.view = view
        self._shown: list[tuple[Media, bool] | None] = []  # the clip of a cell, and whether the grid shows a small copy
        self._table = ""
        super().__init__(data=self._made(view), **more)
        self.on_msg(self._receive)

    def show(self, runs: pd.DataFrame | Sequence[Any] | View, **more: Any) -> None:
        """Show other clips in the same place; arguments as for `compare`, or a View.

        Raises:
            InputError: as `compare`; the clips that were shown stay.
        """
        view = runs if isinstance(runs, View) else clip_view(runs, **more)
        self.data = self._made(view)

    def _made(self, view: View) -> dict[str, Any]:
        """What player.js mounts."""
        found = look_at_all(view.grid.cells, glance)
        pixels = sum(item.info.width * item.info.height for item in found if isinstance(item, Media))
        self.view = view
        self._shown = [_shown(item, pixels > PIXELS_IN_STEP) for item in found]
        notes = [*view.notes, *foreign_notes(found), *self._notes()]
        data = player_data(view.table, view.axes, view.grid, found, notes, view.best, view.reference)
        self._add_opinions(data, view.grid.cells)
        left = POSTERS_LIMIT_BYTES
        for cell in data["cells"]:
            if "poster" in cell:
                cell["lazy"] = True
                left -= len(cell["poster"])
                if left < 0:
                    cell["poster"] = ""
        lines = [line for note in data["notes"] for line in (note if isinstance(note, list) else [note])]
        self._table = "".join(f"<p>{html.escape(line)}</p>" for line in lines) + poster_table(view.grid, data)
        data |= {"height": height_of(view.grid, data), "plain": view.plain}
        return data | ({"notes": []} if view.plain else {})

    def _notes(self) -> list[Any]:
        copied = sum(item[1] for item in self._shown if item)
        if not copied:
            return []
        megabytes = f"{CLIP_LIMIT_BYTES / 1e6:g}"
        return [said("copies_in_kernel", count=copied, all=sum(map(bool, self._shown)), side=PROXY_SIDE, megabytes=megabytes)]

    def _add_opinions(self, data: dict[str, Any], cells: Sequence[GridCell]) -> None:
        if self.opinions is None:
            return
        known = self.opinions.table()
        stars, notes = known["stars"].dropna().to_dict(), known["note"].to_dict()
        data["opinions"] = True
        for cell, shown in zip(cells, data["cells"], strict=True):
            if id := text_of(cell.run.get("id")):
                shown |= {"named": True, "stars": stars.get(id), "note": notes.get(id, "")}

    def _receive(self, _: Any, message: Any, buffers: Any) -> None:
        """Answer a message of a page. Only the number of a cell is used, after a check."""
        if not isinstance(message, dict):
            return
        cell = message.get("cell")
        if not isinstance(cell, int) or not 0 <= cell < len(self._shown):
            return
        actions: dict[str, Callable[[], None]] = {
            "clip": lambda: self._send_clip(cell, message.get("request"), bool(message.get("whole"))),
            "stars": lambda: self._keep(cell, "stars", message.get("value")),
            "note": lambda: self._keep(cell, "note", message.get("value")),
        }
        actions.get(str(message.get("type")), lambda: None)()

    def _send_clip(self, number: int, request: Any, whole: bool) -> None:
        answer = {"type": "clip", "request": request}
        shown = self._shown[number]
        try:
            if shown is None:
                raise I2VLabError("there is no clip")
            item, small = shown
            large = item.info.file_bytes > CLIP_LIMIT_BYTES and not item.kind
            data, copied = bytes_of(item, (small and not whole) or large, CLIP_LIMIT_BYTES)
            if data is None:
                raise I2VLabError(f"over {CLIP_LIMIT_BYTES / 1e6:g} MB, even as a copy: open the file in a video player")
            self.send(answer | {"mime": mime_of(item, copied)}, buffers=[data])
        except (I2VLabError, OSError) as error:
            self.send(answer | {"text": str(error)})

    def _keep(self, number: int, what: str, value: Any) -> None:
        """Keep an opinion, and show it on pages that open later."""
        id = text_of(self.view.grid.cells[number].run.get("id"))
        if self.opinions is None or not id:
            return
        try:
            if what == "stars":
                self.opinions.rate(id, value)
            else:
                self.opinions.note(id, str(value))
        except I2VLabError as error:
            self.send({"type": "problem", "text": str(error)})
            return
        self.data["cells"][number][what] = value

    def _repr_mimebundle_(self, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle, about = super()._repr_mimebundle_(**more)
        return {**bundle, "text/html": self._table, "text/plain": repr(self)}, about

    def __repr__(self) -> str:
        return f"ClipPlayer({len(self.view.grid.rows)} x {len(self.view.grid.columns)}, {sum(map(bool, self._shown))} clips)"


def _shown(item: Media | str, many: bool) -> tuple[Media, bool] | None:
    if not isinstance(item, Media):
        return None
    info = item.info
    return item, (many and max(info.width, info.height) > PROXY_SIDE) or (info.file_bytes > CLIP_LIMIT_BYTES and not item.kind)
