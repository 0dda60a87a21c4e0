"""Small pieces of the studio's HTML and widgets: every text from outside is escaped here."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
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


def html_line(*classes: str, value: str = "") -> Any:
    """An HTML widget."""
    return classed(widgets.HTML(value), *classes)


def button(text: str, tooltip: str, *classes: str, act: Callable[[], object]) -> Any:
    """A button that does `act`."""
    found = widgets.Button(description=text, tooltip=tooltip)
    found.on_click(lambda _: act())
    return classed(found, *classes)


def box(children: Sequence[Any], *classes: str, row: bool = False) -> Any:
    """Widgets below each other, or in a row."""
    return classed((widgets.HBox if row else widgets.VBox)(list(children)), *classes)
