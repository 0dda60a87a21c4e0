"""What a sweep shows, in sentences of one language: what changes along which axis, by how much, and what was not seen."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from i2v_lab import statistics
from i2v_lab.metrics.registry import MARKS, METRICS, flaw
from i2v_lab.metrics.visible import visible_from
from i2v_lab.report.besides import differences
from i2v_lab.report.numbers import ends_text, number, p_text, to_digits
from i2v_lab.report.player.grid import plain_values, texts_by_value
from i2v_lab.report.words import Words
from i2v_lab.statistics import Design, Effect
from i2v_lab.statistics.power import fewest_seeds, least_found

if TYPE_CHECKING:
    import pandas as pd

_AXES_OF = {"size": ("resolution", "width", "height"), "codec": ("format",)}
_LISTED = 12  # pairs in a sentence
_NAMED = 4  # metrics that the line of what was not seen names
_UNEVEN = 3.0  # times: less does no harm


@dataclass
class Parts:
    """The sentences of a report in one language.

    Attributes:
        found: what is more than luck. heads: how each of these begins: what, by how much, p. notes: what a reader must know besides.
        unseen: one line for all that was not seen, or nothing. details: what is folded below it.
    """

    found: list[str] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)


class SweepSentences:
    """Writes the sentences of one sweep."""

    def __init__(self, table: pd.DataFrame, found: Design, asked: str) -> None:
        self.table, self.found, self.asked, self.say = table, found, asked, Words("en")
        self.done = table[table["status"] == "done"]
        self.axes = {axis.name: axis for axis in found.axes}
        self.texts = {axis.name: texts_by_value(axis.name, axis.values) for axis in found.axes}
        names = {name for axis in found.axes for name in (axis.name, *axis.along)}
        self.skip = {column: not_over(column) & names for column in found.metrics}
        differ = differences(table, sorted(names))
        for column in found.metrics:  # each model has its own size or rate
            self.skip[column] |= {"model"} if not_over(column) & differ.keys() else set()

    @cached_property
    def effects(self) -> list[Effect]:
        """All that was tested, the surest first; of those that are claimed, what was asked about first."""
        named = [column for column in self.found.metrics if self._asked(column)]
        return sorted(statistics.effects(self.found, named, self.skip), key=lambda one: one.claimed and not self._asked(one.metric))

    def parts(self, say: Words) -> Parts:
        """All sentences in the language of `say`."""
        self.say = say
        missing = self._missing()
        if self.found.fixed:
            changes, equal = self._plain(say("same_for_all_seeds"))
            return Parts(changes, notes=missing, unseen=equal, details=[self._head(tested=False)])
        if len(self.found.blocks) < 2:
            changes, equal = self._plain(say("maybe_chance"))
            return Parts([self._head(tested=False)], notes=missing, details=[*changes, *equal])
        claimed = [effect for effect in self.effects if effect.claimed]
        large = [effect for effect in claimed if self._size(effect)[1] >= self._visible(effect)]
        small = [effect for effect in claimed if effect not in large]
        powerless, equal, unseen = self._unseen()
        heads = [self._claim(effect) for effect in large]
        found = [head + self._support(effect) for head, effect in zip(heads, large, strict=True)] or [self._nothing(bool(small))]
        details = [*self._small(small), *self._not_compared(), *equal, *unseen, self._head(tested=True)]
        return Parts(found, heads, [*missing, *powerless], self._unseen_line(), details)

    def _nothing(self, small: bool) -> str:
        return self.say("nothing_large" if small else "nothing")

    def _asked(self, column: str) -> bool:
        return column.removeprefix("metric_") == self.asked

    def _head(self, *, tested: bool) -> str:
        say, seeds, pictures = self.say, self.found.seeds, self.found.pictures
        several = pictures > 1 or any(axis.name == "image" for axis in self.found.axes)
        shown = len(set(plain_values(self.table, "image"))) if several and "image" in self.table else 1
        many = say(
            "many", clips=say.count(len(self.done), "clips"), seeds=say.count(seeds, "seeds"), pictures=say.count(shown, "pictures")
        )
        if not tested:
            return say("head_fixed" if self.found.fixed else "head_one_seed", many=many)
        within = [say(f"within_{name}") for name, count in (("pictures", pictures), ("seeds", seeds)) if count > 1]
        scope = say("scope_pictures", pictures=shown) if shown > 1 else say("scope_picture")
        scope = say("scope_seeds", scope=scope) if seeds > 1 else say("scope_one_seed")
        known = f"metric_{self.asked}" in self.found.metrics
        asked = say("asked_known" if known else "asked_unknown", metric=say.in_line(self.asked)) if self.asked else ""
        return say("head", many=many, scope=scope, within=say.listed(within), asked=asked)

    def _missing(self) -> list[str]:
        """Clips that did not get done, or were not measured."""
        say = self.say
        lost = len(self.table) - len(self.done)
        lines = [say("lost", lost=lost, all=len(self.table))] if lost else []
        marks = {name: self.done[f"metric_{name}"].tolist() for name in MARKS if f"metric_{name}" in self.done}
        flaws = Counter(flaw(dict(zip(marks, row, strict=True))) for row in zip(*marks.values(), strict=True))
        if words := [say(f"flaw.{word}", count=count) for word, count in flaws.items() if word]:
            lines.append(say("flawed", flaws=say.listed(words), all=len(self.done)))
        kept = statistics.usable(np.fmax.reduce(self.found.y, axis=-1)[..., None])[1] if self.found.y.size else []
        gone = [
            f"{axis.name} {self.texts[axis.name][value]}"
            for axis, levels in zip(self.found.axes, kept, strict=False)
            for level, value in enumerate(axis.values)
            if level not in levels
        ]
        return lines + ([say("left_out", levels=say.listed(gone))] if gone and len(self.found.blocks) > 1 else [])

    def _plain(self, why: str) -> tuple[list[str], list[str]]:
        """What changes and what does not, by the means alone, what was asked about first."""
        changes: list[str] = []
        equal: list[str] = []
        for column in sorted(self.found.metrics, key=lambda name: not self._asked(name)):
            if not (self.found.fixed and self.skip[column]):
                for axis in range(len(self.found.axes)):
                    line, moves = self._plain_change(axis, column, why)
                    (changes if moves else equal).append(line)
        return changes, equal

    def _plain_change(self, axis: int, column: str, why: str) -> tuple[str, bool]:
        """The means at both ends, without a test; and whether they differ."""
        say, own, unit = self.say, self.found.axes[axis], self._unit(column)
        means = self._means((own.name,), column)
        there = np.flatnonzero(np.isfinite(means))
        head = say("along", metric=say.title(column), axis=own.name)
        if len(there) < 2:
            return say("too_few", head=head), False
        first, last = (there[0], there[-1]) if own.ordered else (there[np.argmin(means[there])], there[np.argmax(means[there])])
        change, start = float(means[last] - means[first]), number(float(means[first]))
        if abs(change) <= 1e-12 * max(1.0, abs(float(means[first]))) and np.ptp(means[there]) <= 1e-12 * max(1.0, abs(change)):
            return say("equal_plain", head=head, value=start + unit), False
        low, high = (self.texts[own.name][own.values[place]] for place in (first, last))
        end = number(float(means[last]))
        return say("plain_change", head=head, first=start, low=low, last=end, high=high,
                   change=number(change, sign=True) + unit, said=why), True  # fmt: skip

    def _means(self, names: Sequence[str], metric: str) -> np.ndarray:
        """Means of the levels of some axes, over blocks and the other axes."""
        at = self.found.metrics.index(metric)
        others = tuple(place for place, axis in enumerate(self.found.axes) if axis.name not in names)
        y = self.found.y[..., at]
        with np.errstate(all="ignore"):
            count = np.isfinite(y).sum((*others, y.ndim - 1))
            return np.asarray(np.where(count > 0, np.nansum(y, (*others, y.ndim - 1)) / np.maximum(count, 1), math.nan))

    def _claim(self, effect: Effect) -> str:
        ordered = self.axes[effect.axes[0]].ordered
        text = self._crossing(effect) if len(effect.axes) == 2 else self._ordered(effect) if ordered else self._differing(effect)
        return text + self.say("p", p=p_text(effect.p))

    def _support(self, effect: Effect) -> str:
        """How far a claim may be relied on."""
        text = self._seen(effect) + self._doubt(effect)
        if effect.metric == "metric_temporal_flickering":
            text += self.say("flicker")
        return text + (self.say("exploratory") if self.asked and not self._asked(effect.metric) else "")

    def _ordered(self, effect: Effect) -> str:
        say, (name,), (values,) = self.say, effect.axes, effect.values
        half = (effect.high - effect.low) / 2
        means = [
            say("mean_at", mean=to_digits(float(mean), half), value=self.texts[name][value])
            for mean, value in zip(effect.means, values, strict=True)
        ]
        shown = means if len(means) <= 5 else [means[0], means[len(means) // 2], means[-1]]
        unit = self._unit(effect.metric)
        key = "bends" if effect.shape == "bend" else "rises" if effect.change > 0 else "falls"
        head = say(key, metric=say.title(effect.metric), axis=self._axis(name))
        change = self._span(effect.change, effect.low, effect.high) + unit
        line = "bend" if effect.shape == "bend" else "line" if len(values) > 2 else "change"
        text = say("means", head=head, means=say("comma").join(shown)) + unit
        return text + say(line, count=len(values), change=change) + self._apart(effect)

    def _differing(self, effect: Effect) -> str:
        say, (name,), (values,) = self.say, effect.axes, effect.values
        order = np.argsort(effect.means)
        low, high = int(order[0]), int(order[-1])
        widest = next((pair for pair in effect.pairs if {pair.before, pair.after} == {low, high}), None)
        sign = 1 if widest is None or widest.after == high else -1
        ends = sorted((sign * widest.low, sign * widest.high)) if widest else [math.nan, math.nan]
        change = float(effect.means[high] - effect.means[low])
        half = (ends[1] - ends[0]) / 2
        texts = [self.texts[name][values[place]] for place in (low, high)]
        means = [to_digits(float(effect.means[place]), half) for place in (low, high)]
        text = say(
            "differs",
            metric=say.title(effect.metric),
            axis=self._axis(name),
            low=means[0],
            low_at=texts[0],
            high=means[1],
            high_at=texts[1],
        )
        return text + self._unit(effect.metric) + say("differs_change", change=self._span(change, *ends)) + self._apart(effect)

    def _crossing(self, effect: Effect) -> str:
        say, (one, other) = self.say, effect.axes
        means = self._means(effect.axes, effect.metric)  # (levels of one, levels of the other): both are in the order of the design
        start, end = (self.axes[one].values.index(effect.values[0][place]) for place in (0, -1))
        parts = []
        for value in (effect.values[1][0], effect.values[1][-1]):
            column = self.axes[other].values.index(value)
            change = float(means[end, column] - means[start, column])
            parts.append(say("cross_at", change=number(change, sign=True), axis=other, value=self.texts[other][value]))
        first, last = (self.texts[one][effect.values[0][place]] for place in (0, -1))
        text = say(
            "crosses",
            one=one,
            metric=say.in_line(effect.metric),
            other=other,
            first=first,
            last=last,
            changes=say("cross_join").join(parts),
        )
        extra = say("cross_extra", change=self._span(effect.change, effect.low, effect.high)) if effect.shape == "trend" else ""
        return text + self._unit(effect.metric) + extra

    def _span(self, change: float, low: float, high: float) -> str:
        middle, *ends = ends_text(change, low, high)
        return self.say("span", change=middle, low=ends[0], high=ends[1]) if ends else middle

    def _axis(self, name: str) -> str:
        along = self.axes[name].along
        return self.say("with_it", axis=name, along=self.say.listed(along)) if along else name

    def _apart(self, effect: Effect) -> str:
        """Which pairs of settings can be told apart."""
        say = self.say
        if len(effect.values[0]) < 3 or not effect.pairs:
            return ""
        texts = [self.texts[effect.axes[0]][value] for value in effect.values[0]]
        sure: dict[int, list[str]] = {}
        for pair in effect.pairs:
            if pair.low > 0 or pair.high < 0:
                sure.setdefault(pair.before, []).append(texts[pair.after])
        many = sum(map(len, sure.values()))
        if many in (0, len(effect.pairs)):
            return say("all_apart" if many else "none_apart")
        if many > _LISTED:
            return say("some_apart", some=many, all=len(effect.pairs))
        parts = [say("apart_pair", one=texts[before], others=say.listed(after)) for before, after in sure.items()]
        return say("apart", pairs=say("apart_join").join(parts))

    def _size(self, effect: Effect) -> tuple[float, float]:
        """(least, largest) size of an effect by its interval; of categories by the widest pair."""
        if not math.isnan(effect.low):
            return (min(abs(effect.low), abs(effect.high)) if effect.low * effect.high > 0 else 0.0), max(-effect.low, effect.high)
        widest = max(effect.pairs, key=lambda pair: abs(pair.change), default=None)
        if widest:
            return max(widest.low, -widest.high, 0.0), max(-widest.low, widest.high)
        return float(np.ptp(effect.means)), float(np.ptp(effect.means))  # without an interval

    def _visible(self, effect: Effect) -> float:
        level = self._means(effect.axes, effect.metric)
        return visible_from(effect.metric.removeprefix("metric_"), float(np.nanmean(level)))

    def _seen(self, effect: Effect) -> str:
        least, threshold = self._size(effect)[0], self._visible(effect)
        if not threshold:
            return self.say("seen_unknown")
        return self.say("seen" if least >= threshold else "seen_perhaps", least=number(threshold) + self._unit(effect.metric))

    def _doubt(self, effect: Effect) -> str:
        say, why = self.say, []
        if effect.uneven > _UNEVEN:
            why.append(say("uneven", times=f"{effect.uneven:.2g}" if effect.uneven < 99 else say("uneven_far")))
        if effect.smooth:
            why.append(say("smooth"))
        if not why or effect.firm:
            return ""
        # Reports that claim something wrong where shuffles are not exact: experiments/check_statistics.py.
        rate = say(f"rate.{'smooth' if effect.smooth else 'categories' if effect.shape == 'differ' else 'numbers'}")
        return say("doubt", why=say.listed(why), rate=rate)

    def _small(self, small: Sequence[Effect]) -> list[str]:
        if not small:
            return []
        parts = [
            self.say(
                "small_part",
                metric=self.say.in_line(effect.metric),
                axes=self.say.listed(effect.axes),
                most=number(self._size(effect)[1]) + self._unit(effect.metric),
                least=number(self._visible(effect)),
            )
            for effect in small
        ]
        return [self.say("small", parts=self.say("list").join(parts))]

    def _not_compared(self) -> list[str]:
        by_axes: dict[tuple[str, ...], list[str]] = {}
        for column, names in self.skip.items():
            if names:
                by_axes.setdefault(tuple(sorted(names)), []).append(self.say.in_line(column))
        listed = self.say.listed
        return [self.say("not_compared", axes=listed(axes), metrics=listed(names)) for axes, names in by_axes.items()]

    def _own(self, axis: str) -> list[Effect]:
        """The effects along one axis that are not claimed."""
        return [effect for effect in self.effects if effect.axes == (axis,) and not effect.claimed]

    def _unseen(self) -> tuple[list[str], list[str], list[str]]:
        """(axes that can show nothing, what is equal, all that was not found, with what would have been)."""
        say, powerless, alike, parts = self.say, [], [], []
        for axis in self.found.axes:
            own = self._own(axis.name)
            equal = [effect for effect in own if max(np.ptp(effect.means), effect.spread) <= 1e-12 * np.abs(effect.means).max()]
            rest = [effect for effect in own if effect not in equal]
            if equal:
                alike.append(say("equal", axis=axis.name, metrics=say.listed([say.in_line(effect.metric) for effect in equal])))
            if not rest:
                continue
            settings, blocks = len(rest[0].values[0]), len(self.found.blocks)
            if blocks < (more := fewest_seeds(settings)):
                powerless.append(say("can_show_nothing", settings=settings, axis=axis.name, seeds=blocks, more=more))
                continue
            sizes = []
            for effect in rest:
                size = least_found(settings, blocks, self._asked(effect.metric)) * effect.spread
                amount = say("amount", amount=number(size) + self._unit(effect.metric)) if math.isfinite(size) else ""
                sizes.append(say.in_line(effect.metric) + amount)
            parts.append(say("unseen_part", axis=axis.name, metrics=say.listed(sizes)))
        return powerless, alike, [say("unseen", parts=say("list").join(parts))] if parts else []

    def _unseen_line(self) -> list[str]:
        """One line that says where no change was seen."""
        say, parts = self.say, []
        for axis in self.found.axes:
            own, tested = self._own(axis.name), sum(effect.axes == (axis.name,) for effect in self.effects)
            if 0 < len(own) <= _NAMED:
                names = say.listed([say.in_line(effect.metric) for effect in own])
                parts.append(say("unseen_named", axis=axis.name, metrics=names))
            elif own:
                parts.append(say("unseen_short", axis=axis.name, some=len(own), all=tested))
        return [say("sentence", text=say("unseen_join").join(parts))] if parts else []

    def _unit(self, metric: str) -> str:
        return self.say.unit(metric)


def not_over(column: str) -> set[str]:
    """The axes over which a metric must not be compared, since it depends on them besides what is in the clip."""
    known = METRICS.get(column.removeprefix("metric_"))
    return {name for what in (known.depends_on if known else ()) for name in _AXES_OF.get(what, (what,))}
