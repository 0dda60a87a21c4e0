"""Elements that ipywidgets lacks: a drop zone for files, a strip of clips, a screen that plays, a text to copy. Their page's side is studio.js."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

import anywidget
import traitlets

_SCRIPT = files("i2v_lab.widgets.studio").joinpath("studio.js").read_text(encoding="utf-8")
_STYLE = files("i2v_lab.widgets.studio").joinpath("studio.css").read_text(encoding="utf-8")


class DropZone(anywidget.AnyWidget):  # type: ignore[misc]
    """Takes files by drop (anywhere on the studio), click or paste, and shows the picture with its crop.

    Attributes:
        picture: JPEG; b"" for none. alt: a description of it, for screen readers.
        words: texts of the page's side.
        busy: whether a job of this kernel runs or waits: Voilà must not end the kernel with its page then.
    """

    _esm = _SCRIPT
    _css = _STYLE
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

    def on_open(self, call: Callable[[str], None]) -> None:
        """call(id) after a click on a clip."""

        def heard(_: Any, message: Any, __: Any) -> None:
            if isinstance(message, dict) and message.get("type") == "open":
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
