"""The findings of a sweep in sentences, one for each finding, made from the numbers."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from i2v_lab import statistics
from i2v_lab.metrics import METRICS
from i2v_lab.report.player.grid import plain_values, value_order, value_texts
from i2v_lab.report.style import shown_axes, shown_metrics
from i2v_lab.statistics import Difference

if TYPE_CHECKING:
    import pandas as pd


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


def findings(table: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str] | None = None) -> Findings:
    """What a sweep shows: a sentence for each swept parameter and metric.

    Differences are paired by seed, picture and all else that was swept. p values are corrected (Holm) for all comparisons
    along one axis, all metrics together.

    Args: as `metric_plots`.
    """
    names = shown_metrics(table) if metrics is None else list(metrics)
    if not names:
        return Findings(("No clip of this sweep has metrics; `i2v-lab measure --missing` fills them in.",))
    shown = shown_axes(table, axes)
    if not shown:
        return Findings((_spread_of_seeds(table, names),))
    per_axis = {axis: statistics.differences(table, axis, names, axes) for axis in shown}
    sentences = [_head(table, [len(found) for found in per_axis.values()])]
    for axis, found in per_axis.items():
        means = statistics.by_value(table, axis, names)
        for name in names:
            column = statistics.metric_column(table, name)
            own = [one for one in found if one.metric == column]
            sentences.append(_sentence(axis, name, own, means[means["metric"] == column], means))
    return Findings(tuple(sentences))


def _head(table: pd.DataFrame, comparisons: Sequence[int]) -> str:
    done = table[table["status"] == "done"]
    seeds = len(set(plain_values(done, "seed"))) if "seed" in done else 1
    pictures = len(set(plain_values(done, "image"))) if "image" in done else 1
    many = f"{len(done)} clip{'s' * (len(done) != 1)}, {seeds} seed{'s' * (seeds != 1)}, {pictures} picture{'s' * (pictures != 1)}."
    if seeds < 2:
        return f"{many} One seed: differences may be chance. Run more seeds to find out."
    tests = " and ".join(map(str, comparisons))
    return (
        f"{many} Intervals are 95 % (bootstrap over seeds): they say what other seeds would give with these pictures. A difference "
        f"is reported where p < 0.05 in a paired t-test over seeds, corrected (Holm) for the {tests} comparisons along an axis."
    )


def _spread_of_seeds(table: pd.DataFrame, names: Sequence[str]) -> str:
    parts = []
    for name in names:
        values = table.loc[table["status"] == "done", statistics.metric_column(table, name)].astype("float64").dropna()
        if len(values) > 1:
            parts.append(f"{_title(name)} {_number(values.mean())}, from {_number(values.min())} to {_number(values.max())}")
    if not parts:
        return "One clip: nothing can be compared."
    return f"Only the seed was swept. Over {len(table)} seeds: {'; '.join(parts)}."


def _sentence(axis: str, name: str, found: Sequence[Difference], own: pd.DataFrame, means: pd.DataFrame) -> str:
    """One metric along one axis."""
    order = value_order(axis, own["value"].tolist())
    if len(order) < 2:
        return f"{_title(name)} by {axis}: there are not enough measurements."
    texts = dict(zip(order, value_texts(axis, order), strict=True))
    at = {row["value"]: row for _, row in own.iterrows()}
    numeric = all(isinstance(value, (int, float)) for value in order)
    ends = (
        [order[0], order[-1]] if numeric else sorted(order, key=lambda value: float(at[value]["mean"]))[:: max(1, len(order) - 1)]
    )
    unit = METRICS[name].unit if name in METRICS else ""
    low, high = (f"{_with_interval(at[value], unit)} at {axis} {texts[value]}" for value in ends)
    whole = next((one for one in found if {one.before, one.after} == set(ends)), None)
    text = f"{_title(name)}: {low}, {high}" + (f": {_verdict(whole)}." if whole else ".")
    steps = [one for one in found if one is not whole and one.verdict != "no pairs"]
    if steps and steps[0].verdict != "one seed":
        text += _steps(steps, texts)
    if name == "temporal_flickering":
        text += _motion_beside(ends, means)
    return text


def _steps(steps: Sequence[Difference], texts: dict[Any, str]) -> str:
    """Which other pairs of values differ."""
    parts = []
    for verdict in ("higher", "lower"):
        pairs = [f"{texts[one.before]} to {texts[one.after]}" for one in steps if one.verdict == verdict]
        parts += [f"{verdict} from {', '.join(pairs)}"] if pairs else []
    unseen = [f"{texts[one.before]} and {texts[one.after]}" for one in steps if one.verdict == "no difference seen"]
    if unseen and parts:
        parts.append(f"no difference seen between {', '.join(unseen)}")
    if not parts:
        return " No difference was seen between the other values either." if unseen else ""
    return f" Between other values: {'; '.join(parts)}."


def _verdict(one: Difference) -> str:
    if one.verdict == "no pairs":
        return "no two clips share a seed and a picture, so they cannot be compared"
    if one.verdict == "one seed":
        return f"{one.mean:+.3g} with one seed, so it may be chance"
    effect = "" if math.isinf(one.effect) or math.isnan(one.effect) else f", d = {one.effect:.2g}"
    numbers = f"{one.mean:+.3g}, interval {one.low:+.3g} to {one.high:+.3g}{effect}, p = {one.p_holm:.2g}"
    return (
        f"no difference seen with {one.seeds} seeds ({numbers})"
        if one.verdict == "no difference seen"
        else f"{one.verdict} ({numbers})"
    )


def _motion_beside(ends: Sequence[Any], means: pd.DataFrame) -> str:
    """The motion beside the flicker: a clip that does not move has the best value."""
    motion = means[means["metric"] == "metric_motion"]
    at = {row["value"]: float(row["mean"]) for _, row in motion.iterrows()}
    if any(value not in at for value in ends):
        return " Motion is not known: a clip that does not move has the best value."
    shown = f"{_number(at[ends[0]])} to {_number(at[ends[-1]])} {METRICS['motion'].unit}"
    return f" The motion of these clips: {shown}. A clip that does not move has the best value."


def _title(name: str) -> str:
    known = METRICS.get(name.removeprefix("metric_"))
    title = known.title if known else name.removeprefix("metric_")
    return title[:1].upper() + title[1:] + (" (proxy)" if known and known.proxy else "")


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _with_interval(row: pd.Series[Any], unit: str) -> str:
    shown = f"{row['mean']:.4g}" + (f" {unit}" if unit else "")
    return shown if math.isnan(row["low"]) else f"{shown} ({row['low']:.4g} to {row['high']:.4g})"
