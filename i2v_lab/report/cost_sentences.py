"""What a sweep cost, in sentences: time and memory along each axis, and whether the machine's speed drifted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from i2v_lab import statistics
from i2v_lab.report.numbers import p_text
from i2v_lab.report.player.grid import plain_values, value_order
from i2v_lab.report.sentences import Findings, SweepSentences
from i2v_lab.report.style import shown_axes
from i2v_lab.statistics import Design, Effect, timing

if TYPE_CHECKING:
    import pandas as pd

_TIME = "time per clip"
_LOADS = ("model", "dtype")  # where each has one visit, its time cannot be told from drift


def cost_findings(table: pd.DataFrame, axes: Sequence[str]) -> Findings:
    """How time (without loading the model) and memory change along each axis; see `findings`.

    The first clip of a shape in a process is left out where its setting has other clips: it takes longer.

    Raises:
        InputError: an axis is no column of the table.
    """
    shown = [axis for axis in shown_axes(table, axes) if axis != "seed"]
    memory, kind = statistics.peak_memory(table)
    measured = table.assign(**{_TIME: statistics.clip_seconds(table), kind: memory})
    counted = timing.warm(measured, axes)
    if not shown or not (counted["status"] == "done").any():
        return Findings(("Nothing else than the seed was swept: there are no costs to compare.",))
    orders = {axis: value_order(axis, plain_values(table, axis)) for axis in shown if axis == "resolution"}
    columns = [name for name in (_TIME, kind) if counted[name].notna().any()]
    plain = counted.drop(columns="frames_sha256", errors="ignore")  # equal clips take different times
    found = statistics.design(plain, [*shown, *(["image"] if "image" in axes else [])], columns, orders)
    apart = {axis for axis in shown if axis in _LOADS and timing.visited_apart(counted[counted["status"] == "done"], axis)}
    return Findings(tuple(_CostSentences(plain, found, apart).sentences()) + _drift(counted, axes))


def _drift(table: pd.DataFrame, axes: Sequence[str]) -> tuple[str, ...]:
    found = timing.drift(table, axes)
    if found is None:
        return ()
    if not found.seen:
        return ("No drift of the machine's speed was seen over the sweep.",)
    more = "longer" if found.change > 0 else "less"
    return (
        f"The machine's speed drifted: at the end a clip took {abs(found.change):.0%} {more} than at the beginning, other things equal "
        f"(p {p_text(found.p)}). Seeds that ran at another speed make the intervals above wider.",
    )


class _CostSentences(SweepSentences):
    """Writes the sentences about costs."""

    def __init__(self, table: pd.DataFrame, found: Design, apart: set[str]) -> None:
        super().__init__(table, found, "")
        self.skip[_TIME] = {name for name in apart if any(name in (axis.name, *axis.along) for axis in found.axes)}

    def _head(self, *, tested: bool) -> str:
        done = int((self.table["status"] == "done").sum())
        return f"Costs of {done} clips, without loading the model and without the first clip of a shape." + (
            " They hold for this machine; tests and intervals as for the findings."
            if tested
            else " One seed: differences may be chance."
        )

    def _not_compared(self) -> list[str]:
        return [
            f"The {', '.join(sorted(names))} was run in one visit each, so its time cannot be told from a drift of the machine: not tested."
            for names in self.skip.values()
            if names
        ]

    def _seen(self, effect: Effect) -> str:
        return ""

    def _unit(self, metric: str) -> str:
        return " s" if metric == _TIME else " GiB"
