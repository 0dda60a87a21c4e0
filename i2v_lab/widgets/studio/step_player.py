"""Clips that play in step, shown in place of another widget."""

from __future__ import annotations

from typing import Any

from i2v_lab.store import Store
from i2v_lab.widgets.compare import compare
from i2v_lab.widgets.studio.html import box, button
from i2v_lab.widgets.studio.strings import Strings


class StepPlayer:
    """Empty until `play`."""

    def __init__(self, store: Store, strings: Strings, replaced: Any) -> None:
        """
        Args:
            replaced: the widget that is hidden while clips play.
        """
        self.store, self._replaced = store, replaced
        self._close = button("✕", strings("close"), "i2vs-small", act=self.close)
        self.widget = box([], "i2vs-player-box")

    def play(self, ids: list[str]) -> None:
        """Play these runs.

        Raises:
            I2VLabError: they cannot be shown; what was shown stays.
        """
        table = self.store.runs()
        player = compare(table[table["id"].isin(ids)])
        self.close()
        self._replaced.layout.display = "none"
        self.widget.children = [box([self._close], "i2vs-row", "i2vs-close", row=True), player]

    def close(self) -> None:
        """Show the other widget again."""
        for child in self.widget.children[1:]:
            child.close()
        self.widget.children = []
        self._replaced.layout.display = None
