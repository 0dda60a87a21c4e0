"""Small pieces of the studio's HTML and widgets: every text from outside is escaped here."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets


def escape(text: object) -> str:
    """The text for a place between tags or in an attribute."""
    return html.escape(str(text), quote=True)


def html_line(*classes: str) -> Any:
    """An HTML widget with these classes, empty."""
    found = widgets.HTML()
    for name in classes:
        found.add_class(name)
    return found


def button(text: str, tooltip: str, *classes: str) -> Any:
    """A button with classes."""
    found = widgets.Button(description=text, tooltip=tooltip)
    for name in classes:
        found.add_class(name)
    return found


def box(children: Sequence[Any], *classes: str, row: bool = False) -> Any:
    """A box with classes; the layout is in studio.css."""
    found = (widgets.HBox if row else widgets.VBox)(list(children))
    for name in classes:
        found.add_class(name)
    return found
