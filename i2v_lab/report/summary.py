"""The findings of a sweep: what is more than luck, the cheapest good setting, one line for the rest; the details are folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from itertools import zip_longest
from typing import TYPE_CHECKING

from i2v_lab import statistics
from i2v_lab.language import both
from i2v_lab.report.besides import besides_model
from i2v_lab.report.best_setting import best_setting
from i2v_lab.report.numbers import number
from i2v_lab.report.pieces import folded, framed
from i2v_lab.report.player.grid import plain_values, value_order
from i2v_lab.report.sentences import Parts, SweepSentences
from i2v_lab.report.style import shown_axes, shown_metrics
from i2v_lab.report.words import Said, Words, phrase, said

if TYPE_CHECKING:
    import pandas as pd

_FIRST = 2  # findings that are not folded


@dataclass(frozen=True)
class Findings:
    """Sentences in both languages, the most telling first. A notebook shows them in both; `str` is the English text.

    Attributes:
        found: what is more than luck, what was asked about first; or that there is nothing.
        heads: how each finding begins: what, by how much, p. Empty where there is none.
        notes: what a reader must know besides: clips that are missing, what differs besides the model, too few seeds.
        best: the cheapest good setting, where there is one.
        unseen: one line for all in which no change was seen.
        details: the sizes of that, what cannot be compared, and what all findings rest on: clips, seeds, pictures, the test.
    """

    found: tuple[Said, ...]
    heads: tuple[Said, ...] = ()
    notes: tuple[Said, ...] = ()
    best: tuple[Said, ...] = ()
    unseen: tuple[Said, ...] = ()
    details: tuple[Said, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of them in English."""
        return tuple(one.en for part in fields(self) if part.name != "heads" for one in getattr(self, part.name))

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return framed(self.html())

    def html(self) -> str:
        """The findings without their style."""
        shown = [_weighed(one, head) for one, head in zip_longest(self.found, self.heads)]
        text = "".join(f'<p class="i2v-found">{one}</p>' for one in shown[:_FIRST])
        if more := shown[_FIRST:]:
            text += _folded(phrase("more_found", count=len(more)), more)
        text += _paragraphs(self.best, "i2v-best") + _paragraphs(self.notes, "i2v-note")
        if not self.details:
            return text + _paragraphs(self.unseen, "")
        summary, *_ = self.unseen or (phrase("basis"),)
        return text + _folded(summary, [one.html() for one in self.details])


def _weighed(one: Said, head: Said | None) -> str:
    """A finding whose first part stands out; all of it, where it has no parts."""
    pairs = ((one.en, head.en), (one.zh, head.zh)) if head else ((one.en, one.en), (one.zh, one.zh))
    return both(*(f"<strong>{escape(begin)}</strong>{escape(whole.removeprefix(begin))}" for whole, begin in pairs))


def _paragraphs(texts: Sequence[Said], name: str) -> str:
    return "".join(f'<p class="{name}">{one.html()}</p>' for one in texts)


def _folded(summary: Said, lines: Sequence[str]) -> str:
    return folded(summary, f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>")


def in_both(english: Parts, chinese: Parts, best: Said | None = None) -> Findings:
    """The same sentences in both languages."""
    pairs = {
        part.name: tuple(Said(*pair) for pair in zip(getattr(english, part.name), getattr(chinese, part.name), strict=True))
        for part in fields(english)
    }
    return Findings(**pairs, best=(best,) if best else ())


def findings(table: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str] | None = None, metric: str = "") -> Findings:
    """What a sweep shows: a sentence for each effect that would hold with other seeds, and a line for all that was not seen.

    See `statistics.effects` for the test. The chance that anything in the report is wrong is at most 5 %.

    Where models are compared, a note says what differs besides the model.

    Args: as `metric_plots`, and
        metric: the one that was asked about; the others are exploratory then.
    """
    names = shown_metrics(table) if metrics is None else list(metrics)
    if metric and metric not in names and f"metric_{metric}" in table and table[f"metric_{metric}"].notna().any():
        names.append(metric)
    if not names:
        return Findings((phrase("no_metrics"),))
    shown = shown_axes(table, axes)
    if not shown:
        return Findings((said(lambda say: _spread_of_seeds(table, names, say)),))
    orders = {axis: value_order(axis, plain_values(table, axis)) for axis in shown if axis == "resolution"}
    design = statistics.design(table, [*shown, *(["image"] if "image" in axes else [])], names, orders)
    writer = SweepSentences(table, design, metric)

    def parts(say: Words) -> Parts:
        written = writer.parts(say)
        written.notes += filter(None, [besides_model(table, axes, say)])
        return written

    return in_both(parts(Words("en")), parts(Words("zh")), best_setting(table, axes, metric, names))


def _spread_of_seeds(table: pd.DataFrame, names: Sequence[str], say: Words) -> str:
    parts = []
    for name in names:
        values = table.loc[table["status"] == "done", statistics.metric_column(table, name)].astype("float64").dropna()
        if len(values) > 1:
            mean, low, high = (number(amount) for amount in (values.mean(), values.min(), values.max()))
            parts.append(say("spread_part", metric=say.title(name), mean=mean, low=low, high=high))
    return say("spread", count=len(table), parts=say("list").join(parts)) if parts else say("one_clip")
