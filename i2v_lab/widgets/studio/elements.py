"""Elements that ipywidgets lacks: a head with switches, a drop zone, a strip of clips, a screen, a text to copy, a page to open.

Their page's side is studio_head.js and studio.js.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from i2v_lab.widgets.studio.html import shown_path

PIECE_BYTES = 4_000_000  # of a page, in one message


def _read(name: str) -> str:
    return files("i2v_lab.widgets.studio").joinpath(name).read_text(encoding="utf-8")


_SCRIPT, _STYLE = _read("studio_head.js") + _read("studio.js"), _read("studio.css")


class Head(anywidget.AnyWidget):  # type: ignore[misc]
    """The name of the studio, where clips go, and the switches for the language and for light or dark.

    Its page sends {"type": "begin", "language", "form"} when it is shown: the language that its reader wants, and the form as this
    browser kept it; and {"type": "language", "language"} after the switch was used.

    Attributes:
        about: device and folder. words: texts of the page's side.
        language: the one that is shown. preferred: the one of the settings, "" for the browser's.
        switch: whether the language can be changed.
        place: which form this is for the browser; "": none is kept. form: what the browser keeps.
    """

    _esm = _SCRIPT
    _css = _STYLE
    kind = traitlets.Unicode("head").tag(sync=True)
    about = traitlets.Unicode("").tag(sync=True)
    words = traitlets.Dict().tag(sync=True)
    language = traitlets.Unicode("en").tag(sync=True)
    preferred = traitlets.Unicode("").tag(sync=True)
    switch = traitlets.Bool(True).tag(sync=True)
    place = traitlets.Unicode("").tag(sync=True)
    form: Any = traitlets.Dict().tag(sync=True)


class DropZone(anywidget.AnyWidget):  # type: ignore[misc]
    """Takes files by drop (anywhere on the studio), click or paste, and shows the picture with its crop.

    Attributes:
        picture: JPEG; b"" for none. alt: a description of it, for screen readers.
        words: texts of the page's side.
        busy: whether a job of this kernel runs or waits: Voilà must not end the kernel with its page then.
    """

    _esm = _SCRIPT
    kind = traitlets.Unicode("drop").tag(sync=True)
    picture = traitlets.Bytes(b"").tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    words = traitlets.Dict().tag(sync=True)
    busy = traitlets.Bool(False).tag(sync=True)


class Strip(anywidget.AnyWidget):  # type: ignore[misc]
    """Clips as posters; a click opens one, with Shift or Ctrl (or its corner) it is chosen.

    Attributes:
        items: dicts with id, status, caption, title, note and poster (JPEG bytes).
        chosen: ids.
        columns: 0: one line that scrolls; otherwise a grid of so many. shape: of the posters, width / height.
        words: texts of the page's side.
    """

    _esm = _SCRIPT
    kind = traitlets.Unicode("strip").tag(sync=True)
    items: Any = traitlets.List().tag(sync=True)
    chosen: Any = traitlets.List().tag(sync=True)
    columns = traitlets.Int(0).tag(sync=True)
    shape = traitlets.Unicode("4 / 3").tag(sync=True)
    words = traitlets.Dict().tag(sync=True)

    def on(self, type: str, call: Callable[[str], None]) -> None:
        """call(id) after a click on a clip ("open"), or when it is to be deleted ("delete").

        Its page offers the latter where `words` has the word "delete".
        """

        def heard(_: Any, message: Any, __: Any) -> None:
            if isinstance(message, dict) and message.get("type") == type:
                call(str(message.get("id")))

        self.on_msg(heard)


class CodePanel(anywidget.AnyWidget):  # type: ignore[misc]
    """A button that shows a text, and one that copies it. Without a text there is nothing.

    Attributes:
        text: what is shown. words: texts of the page's side.
    """

    _esm = _SCRIPT
    kind = traitlets.Unicode("code").tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    words = traitlets.Dict().tag(sync=True)


class PageLink(anywidget.AnyWidget):  # type: ignore[misc]
    """A button that opens an HTML file in a new tab of the browser, through the kernel: so it works wherever the kernel runs.

    Attributes:
        text: of the button. path: where the file is, as people write it; "" hides the button. help: its tooltip.
    """

    _esm = _SCRIPT
    kind = traitlets.Unicode("page").tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    help = traitlets.Unicode("").tag(sync=True)
    path = traitlets.Unicode("").tag(sync=True)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._file: Path | None = None
        self.on_msg(self._asked)

    def show(self, file: Path | None) -> None:
        """Offer this file; None: nothing."""
        self._file, self.path = file, shown_path(file) if file else ""

    def _asked(self, _: Any, message: Any, __: Any) -> None:
        if not (isinstance(message, dict) and message.get("type") == "open"):
            return
        try:
            data = self._file.read_bytes() if self._file else b""
        except OSError as error:
            self.send({"type": "page", "refused": f"{self.path}: {error.strerror}"})
            return
        for at in range(0, len(data), PIECE_BYTES) or [0]:
            self.send({"type": "page", "last": at + PIECE_BYTES >= len(data)}, [data[at : at + PIECE_BYTES]])


class Screen(anywidget.AnyWidget):  # type: ignore[misc]
    """Shows a clip, looping, or a picture.

    Attributes:
        source: the file's bytes. mime: of these; image/... is shown as it is, anything else is played.
        width, height: pixels. alt: a description.
        rough: whether it is a preview, small and enlarged.
    """

    _esm = _SCRIPT
    kind = traitlets.Unicode("screen").tag(sync=True)
    source = traitlets.Bytes(b"").tag(sync=True)
    mime = traitlets.Unicode("").tag(sync=True)
    width = traitlets.Int(16).tag(sync=True)
    height = traitlets.Int(9).tag(sync=True)
    alt = traitlets.Unicode("").tag(sync=True)
    rough = traitlets.Bool(False).tag(sync=True)
    empty = traitlets.Unicode("").tag(sync=True)

    def show(self, source: bytes, mime: str, size: tuple[int, int], alt: str, *, rough: bool = False) -> None:
        """Show another clip; `size` is (height, width)."""
        with self.hold_sync():
            self.height, self.width = size
            self.mime, self.alt, self.rough, self.source = mime, alt, rough, source
