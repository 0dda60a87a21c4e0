"""What a sweep cost, in sentences: time and memory along each axis, and whether the machine's speed drifted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from i2v_lab import statistics
from i2v_lab.report.numbers import p_text
from i2v_lab.report.player.grid import plain_values, value_order
from i2v_lab.report.sentences import Parts, SweepSentences
from i2v_lab.report.style import shown_axes
from i2v_lab.report.summary import Findings, in_both
from i2v_lab.report.words import Words, phrase
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
    shown = shown_axes(table, axes)
    memory, kind = statistics.peak_memory(table)
    measured = table.assign(**{_TIME: statistics.clip_seconds(table), kind: memory})
    counted = timing.warm(measured, axes)
    if not shown or not (counted["status"] == "done").any():
        return Findings((phrase("no_costs"),))
    orders = {axis: value_order(axis, plain_values(table, axis)) for axis in shown if axis == "resolution"}
    columns = [name for name in (_TIME, kind) if counted[name].notna().any()]
    plain = counted.drop(columns="frames_sha256", errors="ignore")  # equal clips take different times
    found = statistics.design(plain, [*shown, *(["image"] if "image" in axes else [])], columns, orders)
    apart = {axis for axis in shown if axis in _LOADS and timing.visited_apart(counted[counted["status"] == "done"], axis)}
    writer, drift = _CostSentences(plain, found, apart), timing.drift(counted, axes)

    def parts(say: Words) -> Parts:
        written = writer.parts(say)
        if drift:
            (written.notes if drift.seen else written.details).append(_drift_sentence(drift, say))
        return written

    return in_both(parts(Words("en")), parts(Words("zh")))


def _drift_sentence(drift: timing.Drift, say: Words) -> str:
    if not drift.seen:
        return say("no_drift")
    return say("drift_more" if drift.change > 0 else "drift_less", share=f"{abs(drift.change):.0%}", p=p_text(drift.p))


class _CostSentences(SweepSentences):
    """Writes the sentences about costs."""

    def __init__(self, table: pd.DataFrame, found: Design, apart: set[str]) -> None:
        super().__init__(table, found, "")
        self.skip[_TIME] = {name for name in apart if any(name in (axis.name, *axis.along) for axis in found.axes)}

    def _nothing(self, small: bool) -> str:
        return self.say("nothing_cost")

    def _head(self, *, tested: bool) -> str:
        return self.say("cost_head" if tested else "cost_head_one", clips=self.say.count(len(self.done), "clips"))

    def _not_compared(self) -> list[str]:
        return [self.say("one_visit", axes=self.say.listed(sorted(names))) for names in self.skip.values() if names]

    def _seen(self, effect: Effect) -> str:
        return ""

    def _unit(self, metric: str) -> str:
        return " " + self.say("s") if metric == _TIME else " GiB"
