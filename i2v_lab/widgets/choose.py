"""A table of runs to choose from, in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import pandas as pd
import traitlets

from i2v_lab.report.player.assets import base_script, joined
from i2v_lab.report.player.grid import check_axes, plain_values
from i2v_lab.report.player.view import BASIC, FIELDS, differing

if TYPE_CHECKING:
    from i2v_lab.widgets.clip_player import ClipPlayer

CHOSEN_FIRST = 6  # runs that are chosen at first: the newest finished ones


class RunTable(anywidget.AnyWidget):  # type: ignore[misc]
    """The table: sort, filter, choose rows; values that differ among the chosen rows are in colour.

    Attributes:
        runs: the whole table.
        selected: numbers of the chosen rows, from 0.
    """

    _esm = base_script() + "\n" + joined("table.js", package="i2v_lab.widgets")
    _css = joined("player.css") + "\n" + joined("table.css", package="i2v_lab.widgets")
    data = traitlets.Dict().tag(sync=True)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(self, runs: pd.DataFrame, columns: Sequence[str] | None = None, **more: Any) -> None:
        """Show a table of runs; at first the newest six finished ones are chosen.

        Args:
            runs: such as runs() gives.
            columns: those that are shown; by default the parameters that differ, the main ones, the cost and the metrics.

        Raises:
            InputError: a column is not one of the table's.
        """
        self.runs = runs.reset_index(drop=True)
        shown = list(columns) if columns is not None else usual_columns(self.runs)
        check_axes(runs, shown, "columns")
        values = [_texts(self.runs, name) for name in shown]
        data = {
            "columns": shown,
            "params": [name for name in FIELDS if name in shown],
            "rows": [list(row) for row in zip(*values, strict=True)],
        }
        done = self.runs.index[self.runs["status"] == "done"] if "status" in self.runs else self.runs.index
        super().__init__(data=data, selected=[int(number) for number in done[-CHOSEN_FIRST:]], **more)

    @property
    def chosen(self) -> pd.DataFrame:
        """The chosen runs, in the order of the table."""
        return self.runs.iloc[[number for number in self.selected if 0 <= number < len(self.runs)]]

    def on_choice(self, act: Callable[[pd.DataFrame], object]) -> None:
        """Call `act` with the chosen runs, now and after each change of the choice; never with an empty table."""

        def changed(_: Any) -> None:
            if len(chosen := self.chosen):
                act(chosen)

        self.observe(changed, "selected")
        changed(None)

    def show_in(self, player: ClipPlayer, **more: Any) -> None:
        """Show the chosen runs in a player; further arguments as for `compare`."""
        self.on_choice(lambda chosen: player.show(chosen, **more))

    def _repr_mimebundle_(self, **more: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        bundle, about = super()._repr_mimebundle_(**more)
        plain = self.runs[self.data["columns"]].tail(20).to_html(escape=True, index=False, border=0)
        return {**bundle, "text/html": plain, "text/plain": repr(self)}, about

    def __repr__(self) -> str:
        return f"RunTable({len(self.selected)} of {len(self.runs)} runs chosen)"


def usual_columns(runs: pd.DataFrame) -> list[str]:
    """The usual columns: time, what differs, cost, metrics, and then what is the same in all."""
    differ = differing(runs)
    vram = "peak_vram_allocated_gib"
    memory = vram if vram in runs and runs[vram].notna().any() else "peak_ram_gib"
    metrics = [str(name) for name in runs.columns if str(name).startswith("metric_")]
    others = ["created", "status", *differ, "seconds_total", memory, *metrics, *BASIC, "sweep"]
    return [name for name in dict.fromkeys(others) if name in runs.columns]


def _texts(runs: pd.DataFrame, name: str) -> list[Any]:
    """A column as numbers, texts and None."""
    if isinstance(runs[name].dtype, pd.DatetimeTZDtype):
        return [None if pd.isna(moment) else f"{moment:%Y-%m-%d %H:%M:%S}" for moment in runs[name]]
    return plain_values(runs, name)
