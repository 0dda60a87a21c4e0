"""The cheapest good setting of a sweep, in a sentence: good is what nobody can tell from the best by looking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from i2v_lab import statistics
from i2v_lab.metrics.visible import visible_from
from i2v_lab.report.numbers import number
from i2v_lab.report.player.grid import in_words, labels
from i2v_lab.report.style import QUALITIES, shown_axes
from i2v_lab.report.words import Said, Words, said
from i2v_lab.statistics import timing

if TYPE_CHECKING:
    import pandas as pd

_NAMED = 2  # other good settings of the same cost


def quality_of(table: pd.DataFrame, asked: str = "", names: Sequence[str] = ()) -> str | None:
    """The metric that settings are ranked by: the one that was asked about, or the first of QUALITIES that was measured.

    Args:
        names: the metrics that may be taken; all of QUALITIES where it is empty.
    """
    for name in (asked, *(name for name in QUALITIES if not names or name in names)):
        column = f"metric_{name}"
        if name and column in table and table[column].notna().any() and statistics.more_is_better(name) is not None:
            return name
    return None


def best_setting(table: pd.DataFrame, axes: Sequence[str], asked: str = "", names: Sequence[str] = ()) -> Said | None:
    """The cheapest of the settings whose mean nobody can tell from the best one by looking; None where nothing can be compared."""
    shown, quality = shown_axes(table, axes), quality_of(table, asked, names)
    if quality is None or "seconds_total" not in table:
        return None
    table = timing.as_warm(table, axes)
    found = statistics.settings(table, shown, quality)
    found = found[found["mean"].notna()]
    if len(found) < 2:
        return None
    less = statistics.more_is_better(quality) is False
    top = found.sort_values("mean", ascending=less, kind="stable").iloc[0]
    near = visible_from(quality, float(top["mean"]))
    row = statistics.cheapest(table, shown, quality, float(top["mean"]) + (near if less else -near))
    if row is None:
        return None
    good = found[(found["mean"] - top["mean"]).abs() <= near]
    same = good[(good["run"] != row["run"]) & (good["cost_low"] <= row["cost_high"])]
    words = dict(zip(table.index, map(in_words, labels(table, shown)), strict=True))
    figure = _Figure(quality, near, statistics.peak_memory(table)[1])
    return said(lambda say: _sentence(say, row, top, len(found), [words[run] for run in same["run"]], words, figure))


class _Figure(NamedTuple):
    """By what settings are ranked: the metric, the least difference that is seen, the kind of memory."""

    quality: str
    visible: float
    memory: str


def _sentence(say: Words, row: Any, top: Any, settings: int, same: Sequence[str], words: Mapping[Any, str], figure: _Figure) -> str:
    mean = number(float(row["mean"]))
    if row["low"] == row["low"]:
        mean = say("best_interval", mean=mean, low=number(float(row["low"])), high=number(float(row["high"])))
    text = say("best", setting=words[row["run"]], seconds=number(float(row["cost"])), metric=say.in_line(figure.quality),
               mean=mean + say.unit(figure.quality))  # fmt: skip
    if row["memory"] == row["memory"]:
        text += say("best_memory", gib=number(float(row["memory"])), kind=say.known(figure.memory, figure.memory))
    if row["run"] == top["run"]:
        text += say("best_itself", count=settings)
    else:
        text += say("best_of", best=number(float(top["mean"])), setting=words[top["run"]], least=number(figure.visible))
    if same:
        others = say.listed(list(same)) if len(same) <= _NAMED else say("best_count", count=len(same))
        text += say("best_same_cost", others=others)
    return say("sentence", text=text)
