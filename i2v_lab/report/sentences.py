"""The findings of a sweep in sentences: what changes along which axis, by how much, and what was not seen."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from i2v_lab import statistics
from i2v_lab.metrics import METRICS
from i2v_lab.metrics.registry import MARKS, flaw
from i2v_lab.metrics.visible import visible_from
from i2v_lab.report.besides import besides_model, differences
from i2v_lab.report.numbers import in_line, listed, number, p_text, span_text, title, to_digits
from i2v_lab.report.player.grid import plain_values, value_order, value_texts
from i2v_lab.report.style import shown_axes, shown_metrics
from i2v_lab.statistics import Design, Effect
from i2v_lab.statistics.power import fewest_seeds, least_found

if TYPE_CHECKING:
    import pandas as pd

_AXES_OF = {"size": ("resolution", "width", "height"), "codec": ("format",)}
_LISTED = 12  # pairs in a sentence
_UNEVEN = 3.0  # times: less does no harm
# Reports that claim something wrong where shuffles are not exact: experiments/check_statistics.py.
_MORE_WRONG = {"numbers": "12 %", "categories": "20 %", "smooth": "8 to 40 %"}


@dataclass(frozen=True)
class Findings:
    """Sentences, one for each finding. The first one says what the others rest on: clips, seeds, pictures, the test."""

    sentences: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.sentences)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *rest = (html.escape(sentence) for sentence in self.sentences)
        return f"<p>{head}</p><ul>{''.join(f'<li>{sentence}</li>' for sentence in rest)}</ul>"


def findings(table: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str] | None = None, metric: str = "") -> Findings:
    """What a sweep shows: a sentence for each effect that would hold with other seeds, and a line for all that was not seen.

    See `statistics.effects` for the test. The chance that anything in the report is wrong is at most 5 %.

    Where models are compared, the second sentence says what differs besides the model.

    Args: as `metric_plots`, and
        metric: the one that was asked about; the others are exploratory then.
    """
    head, *rest = _sentences(table, axes, metrics, metric)
    return Findings((head, *filter(None, [besides_model(table, axes)]), *rest))


def _sentences(table: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str] | None, metric: str) -> list[str]:
    names = shown_metrics(table) if metrics is None else list(metrics)
    if metric and metric not in names and f"metric_{metric}" in table and table[f"metric_{metric}"].notna().any():
        names.append(metric)
    if not names:
        return ["No clip of this sweep has metrics; `i2v-lab measure --missing` fills them in."]
    shown = shown_axes(table, axes)
    if not shown:
        return [_spread_of_seeds(table, names)]
    orders = {axis: value_order(axis, plain_values(table, axis)) for axis in shown if axis == "resolution"}
    found = statistics.design(table, [*shown, *(["image"] if "image" in axes else [])], names, orders)
    return SweepSentences(table, found, metric).sentences()


def _spread_of_seeds(table: pd.DataFrame, names: Sequence[str]) -> str:
    parts = []
    for name in names:
        values = table.loc[table["status"] == "done", statistics.metric_column(table, name)].astype("float64").dropna()
        if len(values) > 1:
            parts.append(f"{title(name)} {number(values.mean())}, from {number(values.min())} to {number(values.max())}")
    if not parts:
        return "One clip: nothing can be compared."
    return f"Only the seed was swept. Over {len(table)} seeds: {'; '.join(parts)}."


class SweepSentences:
    """Writes the sentences of one sweep."""

    def __init__(self, table: pd.DataFrame, found: Design, asked: str) -> None:
        self.table, self.found, self.asked = table, found, asked
        texts = {axis.name: value_texts(axis.name, list(axis.values)) for axis in found.axes}
        self.texts = {axis.name: dict(zip(axis.values, texts[axis.name], strict=True)) for axis in found.axes}
        names = {name for axis in found.axes for name in (axis.name, *axis.along)}
        self.skip = {column: not_over(column) & names for column in found.metrics}
        differ = differences(table, sorted(names))
        for column in found.metrics:  # each model has its own size or rate
            self.skip[column] |= {"model"} if not_over(column) & differ.keys() else set()

    def sentences(self) -> list[str]:
        """All sentences of the report, in order: what it rests on, what is missing, what was found, what was not."""
        blocks, missing = len(self.found.blocks), self._missing()
        if self.found.fixed:
            return [self._head(tested=False), *missing, *self._fixed()]
        if blocks < 2:
            return [self._head(tested=False), *missing, *self._one_seed()]
        named = [column for column in self.found.metrics if column.removeprefix("metric_") == self.asked]
        effects = statistics.effects(self.found, named, self.skip)
        claimed = [effect for effect in effects if effect.claimed]
        large = [effect for effect in claimed if self._size(effect)[1] >= self._visible(effect)]
        small = [effect for effect in claimed if effect not in large]
        large.sort(key=lambda effect: effect.metric not in named)
        nothing = f"Nothing {'large enough to see ' if small else ''}was found that would surely hold with other seeds."
        said = [self._sentence(effect) for effect in large] or [nothing]
        return [self._head(tested=True), *missing, *said, *self._small(small), *self._not_compared(), *self._unseen(effects)]

    def _head(self, *, tested: bool) -> str:
        seeds, pictures = self.found.seeds, self.found.pictures
        done = int((self.table["status"] == "done").sum())
        several = pictures > 1 or any(axis.name == "image" for axis in self.found.axes)
        pictures = len(set(plain_values(self.table, "image"))) if several and "image" in self.table else 1
        many = f"{done} clip{'s' * (done != 1)}, {seeds} seed{'s' * (seeds != 1)}, {pictures} picture{'s' * (pictures != 1)}."
        if self.found.fixed:
            return f"{many} Every seed gave the same clip in each setting, so there is no chance in it: nothing is tested."
        if not tested:
            return f"{many} One seed: differences may be chance. Run more seeds to find out."
        within = " and ".join(name for name, many in (("pictures", self.found.pictures), ("seeds", seeds)) if many > 1)
        scope = f"for these {pictures} pictures together" if pictures > 1 else "for this picture"
        scope = f"with other seeds, {scope}" if seeds > 1 else "with other pictures like these, for this seed"
        known = f"metric_{self.asked}" in self.found.metrics
        rest = "; other metrics are exploratory." if known else ", which was not measured."
        asked = f" The sweep asks about {in_line(self.asked)}{rest}" if self.asked else ""
        return (
            f"{many} A finding would hold {scope}: the chance that any of them is wrong is at most 5 % for the whole report, by "
            f"shuffling the values of each axis within {within}. The intervals of "
            f"a metric and axis hold together at 95 %.{asked}"
        )

    def _missing(self) -> list[str]:
        """Clips that did not get done, or were not measured."""
        lost = len(self.table) - int((self.table["status"] == "done").sum())
        lines = [f"{lost} of {len(self.table)} clips were not made; they count in no mean."] if lost else []
        done = self.table[self.table["status"] == "done"]
        marks = {name: done[f"metric_{name}"].tolist() for name in MARKS if f"metric_{name}" in done}
        flaws = Counter(flaw(dict(zip(marks, row, strict=True))) for row in zip(*marks.values(), strict=True))
        if words := [f"{count} {word}" for word, count in flaws.items() if word]:
            lines.append(f"No clips at all, so in no ranking: {listed(words)} of {len(done)}.")
        kept = statistics.usable(np.fmax.reduce(self.found.y, axis=-1)[..., None])[1] if self.found.y.size else []
        gone = [
            f"{axis.name} {self.texts[axis.name][value]}"
            for axis, levels in zip(self.found.axes, kept, strict=False)
            for level, value in enumerate(axis.values)
            if level not in levels
        ]
        return lines + (
            [f"Left out, with clips of fewer than half the seeds: {listed(gone)}."] if gone and len(self.found.blocks) > 1 else []
        )

    def _fixed(self) -> list[str]:
        lines = []
        for axis in range(len(self.found.axes)):
            for at, column in enumerate(self.found.metrics):
                if not self.skip[column]:
                    lines.append(self._plain_change(axis, at, ": the same for every seed tried"))
        return lines

    def _one_seed(self) -> list[str]:
        lines = []
        for axis in range(len(self.found.axes)):
            lines += [self._plain_change(axis, at, " with one seed, so it may be chance") for at in range(len(self.found.metrics))]
        return lines

    def _plain_change(self, axis: int, at: int, said: str) -> str:
        """The means at both ends, without a test."""
        own = self.found.axes[axis]
        means = self._means((own.name,), self.found.metrics[at])
        there = np.flatnonzero(np.isfinite(means))
        head = f"{title(self.found.metrics[at])} along {own.name}"
        if len(there) < 2:
            return f"{head}: there are not enough measurements."
        first, last = (there[0], there[-1]) if own.ordered else (there[np.argmin(means[there])], there[np.argmax(means[there])])
        change = float(means[last] - means[first])
        if abs(change) <= 1e-12 * max(1.0, abs(float(means[first]))) and np.ptp(means[there]) <= 1e-12 * max(1.0, abs(change)):
            return f"{head}: equal, {number(float(means[first]))}{self._unit(self.found.metrics[at])}."
        values = [self.texts[own.name][own.values[place]] for place in (first, last)]
        return (
            f"{head}: {number(float(means[first]))} at {values[0]}, {number(float(means[last]))} at {values[1]}: "
            f"{number(change, sign=True)}{self._unit(self.found.metrics[at])}{said}."
        )

    def _means(self, names: Sequence[str], metric: str) -> np.ndarray:
        """Means of the levels of some axes, over blocks and the other axes."""
        at = self.found.metrics.index(metric)
        others = tuple(place for place, axis in enumerate(self.found.axes) if axis.name not in names)
        y = self.found.y[..., at]
        with np.errstate(all="ignore"):
            count = np.isfinite(y).sum((*others, y.ndim - 1))
            return np.asarray(np.where(count > 0, np.nansum(y, (*others, y.ndim - 1)) / np.maximum(count, 1), math.nan))

    def _sentence(self, effect: Effect) -> str:
        ordered = next(axis.ordered for axis in self.found.axes if axis.name == effect.axes[0])
        text = self._crossing(effect) if len(effect.axes) == 2 else self._ordered(effect) if ordered else self._differing(effect)
        text = f"{text} (p {p_text(effect.p)}). {self._seen(effect)}{self._doubt(effect)}".rstrip()
        if effect.metric == "metric_temporal_flickering":
            text += " A clip that does not move has the best value: see motion."
        return text + (" (exploratory)" if self.asked and effect.metric != f"metric_{self.asked}" else "")

    def _ordered(self, effect: Effect) -> str:
        (name,), (values,) = effect.axes, effect.values
        texts = [self.texts[name][value] for value in values]
        half = (effect.high - effect.low) / 2
        means = [f"{to_digits(float(mean), half)} at {text}" for mean, text in zip(effect.means, texts, strict=True)]
        shown = means if len(means) <= 5 else [means[0], means[len(means) // 2], means[-1]]
        unit = self._unit(effect.metric)
        head = f"{title(effect.metric)} {'rises' if effect.change > 0 else 'falls'} with {self._axis(name)}"
        change = f"{span_text(effect.change, effect.low, effect.high)}{unit}"
        if effect.shape == "bend":
            head = f"{title(effect.metric)} changes along {self._axis(name)}, not in a straight line"
            line = f"the middle of a curve through the {len(values)} settings, in order, lies {change} from its ends"
        else:
            line = (
                f"a straight line through the {len(values)} settings, in order, changes by {change}" if len(values) > 2 else change
            )
        return f"{head}: {', '.join(shown)}{unit}; {line}{self._apart(effect)}"

    def _differing(self, effect: Effect) -> str:
        (name,), (values,) = effect.axes, effect.values
        order = np.argsort(effect.means)
        low, high = int(order[0]), int(order[-1])
        unit = self._unit(effect.metric)
        widest = next((pair for pair in effect.pairs if {pair.before, pair.after} == {low, high}), None)
        sign = 1 if widest is None or widest.after == high else -1
        ends = sorted((sign * widest.low, sign * widest.high)) if widest else [math.nan, math.nan]
        change = float(effect.means[high] - effect.means[low])
        half = (ends[1] - ends[0]) / 2
        texts = [self.texts[name][values[place]] for place in (low, high)]
        means = [to_digits(float(effect.means[place]), half) for place in (low, high)]
        return (
            f"{title(effect.metric)} differs between values of {self._axis(name)}: {means[0]} at {texts[0]}, {means[1]} at {texts[1]}{unit}: "
            f"{span_text(change, *ends)}{self._apart(effect)}"
        )

    def _crossing(self, effect: Effect) -> str:
        one, other = effect.axes
        means = self._means(effect.axes, effect.metric)
        order = [axis.name for axis in self.found.axes if axis.name in effect.axes]
        means = means if order == [one, other] else means.T
        parts = []
        for place in (0, -1):
            value = effect.values[1][place]
            column = list(self._levels(other)).index(value)
            ends = [list(self._levels(one)).index(effect.values[0][end]) for end in (0, -1)]
            change = float(means[ends[1], column] - means[ends[0], column])
            parts.append(f"{number(change, sign=True)} at {other} {self.texts[other][value]}")
        first, last = (self.texts[one][effect.values[0][end]] for end in (0, -1))
        extra = f"; the difference is {span_text(effect.change, effect.low, effect.high)}" if effect.shape == "trend" else ""
        return (
            f"What {one} does to {in_line(effect.metric)} depends on {other}: from {first} to {last} it changes by "
            f"{' and by '.join(parts)}{self._unit(effect.metric)}{extra}"
        )

    def _levels(self, name: str) -> tuple[object, ...]:
        return next(axis.values for axis in self.found.axes if axis.name == name)

    def _axis(self, name: str) -> str:
        along = next(axis.along for axis in self.found.axes if axis.name == name)
        return name + (f" (and {listed(along)}, which change with it)" if along else "")

    def _apart(self, effect: Effect) -> str:
        """Which pairs of settings can be told apart."""
        if len(effect.values[0]) < 3 or not effect.pairs:
            return ""
        texts = [self.texts[effect.axes[0]][value] for value in effect.values[0]]
        sure: dict[int, list[str]] = {}
        for pair in effect.pairs:
            if pair.low > 0 or pair.high < 0:
                sure.setdefault(pair.before, []).append(texts[pair.after])
        if not sure:
            return "; no two settings can be told apart alone"
        if sum(map(len, sure.values())) == len(effect.pairs):
            return "; each setting can be told from each"
        if sum(map(len, sure.values())) > _LISTED:
            return f"; {sum(map(len, sure.values()))} of {len(effect.pairs)} pairs of settings can be told apart"
        return "; told apart: " + "; ".join(f"{texts[before]} from {listed(after)}" for before, after in sure.items())

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
            return "Whether that can be seen is not known."
        can = "Large enough to see" if least >= threshold else "Perhaps too small to see"
        return f"{can} (from {number(threshold)}{self._unit(effect.metric)} on)."

    def _doubt(self, effect: Effect) -> str:
        why = []
        if effect.uneven > _UNEVEN:
            times = f"{effect.uneven:.2g} times" if effect.uneven < 99 else "more than 100 times"
            why.append(f"seeds spread {times} as much in one setting as in another")
        if effect.smooth:
            why.append("a seed's luck is alike at neighbouring values")
        if not why or effect.firm:
            return ""
        rate = _MORE_WRONG["smooth" if effect.smooth else "categories" if effect.shape == "differ" else "numbers"]
        return f" Less sure than the rest: {listed(why)}; of such reports {rate} claim something wrong, not 5 %."

    def _small(self, small: Sequence[Effect]) -> list[str]:
        if not small:
            return []
        parts = [
            f"{in_line(effect.metric)} along {' and '.join(effect.axes)} (at most {number(self._size(effect)[1])}"
            f"{self._unit(effect.metric)}; visible from {number(self._visible(effect))})"
            for effect in small
        ]
        return [f"Sure, but too small to see: {'; '.join(parts)}."]

    def _not_compared(self) -> list[str]:
        by_axes: dict[tuple[str, ...], list[str]] = {}
        for column, names in self.skip.items():
            if names:
                by_axes.setdefault(tuple(sorted(names)), []).append(in_line(column))
        return [f"Not comparable over {listed(axes)}, so not tested: {listed(names)}." for axes, names in by_axes.items()]

    def _unseen(self, effects: Sequence[Effect]) -> list[str]:
        """One line for all that was not found, with what would have been."""
        lines, parts = [], []
        for axis in self.found.axes:
            own = [effect for effect in effects if effect.axes == (axis.name,) and not effect.claimed]
            equal = [effect for effect in own if max(np.ptp(effect.means), effect.spread) <= 1e-12 * np.abs(effect.means).max()]
            rest = [effect for effect in own if effect not in equal]
            if equal:
                lines.append(f"Equal along {axis.name}: {listed([in_line(effect.metric) for effect in equal])}.")
            if not rest:
                continue
            settings, blocks = len(rest[0].values[0]), len(self.found.blocks)
            if blocks < fewest_seeds(settings):
                lines.append(
                    f"{settings} values of {axis.name} and {blocks} seeds can show nothing; {fewest_seeds(settings)} seeds can."
                )
                continue
            sizes = []
            for effect in rest:
                size = least_found(settings, blocks, effect.metric == f"metric_{self.asked}") * effect.spread
                amount = f" ({number(size)}{self._unit(effect.metric)})" if math.isfinite(size) else ""
                sizes.append(in_line(effect.metric) + amount)
            parts.append(f"along {axis.name} in {listed(sizes)}")
        if parts:
            lines.append(
                f"No change seen {'; '.join(parts)}. In brackets: what would have been seen in 8 of 10 such sweeps. Smaller changes may be there."
            )
        return lines

    def _unit(self, metric: str) -> str:
        known = METRICS.get(metric.removeprefix("metric_"))
        return f" {known.unit}" if known and known.unit else ""


def not_over(column: str) -> set[str]:
    """The axes over which a metric must not be compared, since it depends on them besides what is in the clip."""
    known = METRICS.get(column.removeprefix("metric_"))
    return {name for what in (known.depends_on if known else ()) for name in _AXES_OF.get(what, (what,))}
