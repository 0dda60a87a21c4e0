"""Small pieces of the studio's HTML and widgets: every text from outside is escaped here."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ipywidgets as widgets


def escape(text: object) -> str:
    """The text for a place between tags or in an attribute."""
    return html.escape(str(text), quote=True)


def classed(widget: Any, *classes: str) -> Any:
    """The widget, with these classes; the layout is in studio.css."""
    for name in classes:
        widget.add_class(name)
    return widget


def described(kind: Any, tooltip: str, **options: Any) -> Any:
    """A widget with a tooltip, which ipywidgets 7 calls description_tooltip, except that of a button."""
    return kind(**{"tooltip" if kind.class_traits().get("tooltip") else "description_tooltip": tooltip}, **options)


def titled(kind: Any, pages: Sequence[tuple[str, Any]], *classes: str) -> Any:
    """Tabs or folds: (title, widget) of each. ipywidgets 7 has no argument for titles."""
    found = kind(children=[page for _, page in pages])
    for number, (title, _) in enumerate(pages):
        found.set_title(number, title)
    return classed(found, *classes)


def close_all(widget: Any) -> None:
    """Close a widget and all that is in it."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    widget.close()


def refill(parent: Any, children: Sequence[Any]) -> None:
    """Show these in a box, and close what it showed before."""
    before, parent.children = parent.children, list(children)
    for child in before:
        close_all(child)


def shown_path(path: Path) -> str:
    """A path as people write it: ~/results for one in the user's home."""
    with suppress(RuntimeError, ValueError):
        return "~/" + path.relative_to(Path.home()).as_posix()
    return str(path)


def html_line(*classes: str, value: str = "") -> Any:
    """An HTML widget."""
    return classed(described(widgets.HTML, "", value=value), *classes)  # without a tooltip its page says "null"


def button(text: str, tooltip: str, *classes: str, act: Callable[[], object]) -> Any:
    """A button that does `act`."""
    found = described(widgets.Button, tooltip, description=text)
    found.on_click(lambda _: act())
    return classed(found, *classes)


def box(children: Sequence[Any], *classes: str, row: bool = False) -> Any:
    """Widgets below each other, or in a row."""
    return classed((widgets.HBox if row else widgets.VBox)(list(children)), *classes)
