"""Differences between settings, paired by seed and picture, and what may be claimed about them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from i2v_lab.statistics.columns import Numbers, amounts_of, metric_column, plain, seeds_of
from i2v_lab.statistics.intervals import LEVEL, interval

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["higher", "lower", "no difference seen", "one seed", "no pairs"]


@dataclass(frozen=True)
class Difference:
    """One metric at one value of an axis against another, paired by seed, picture and all else that was swept.

    Attributes:
        metric: the column. before, after: the two values.
        mean: of `after` less `before` over the pairs.
        low, high: 95 % interval of it, by bootstrap over seeds; not corrected for many comparisons.
        effect: Cohen's d for pairs: mean over standard deviation of the seeds' own differences. NaN with one seed.
        p: of a paired t-test over the seeds' mean differences. p_holm: the same, corrected (Holm) for all differences that
            were asked for together.
        pairs, seeds: how many there were.
    """

    metric: str
    before: Any
    after: Any
    mean: float
    low: float
    high: float
    effect: float
    p: float
    pairs: int
    seeds: int
    p_holm: float = math.nan

    @property
    def verdict(self) -> Verdict:
        """What may be claimed: a difference, if the corrected p is below 0.05."""
        if not self.pairs:
            return "no pairs"
        if self.seeds < 2:
            return "one seed"
        if self.p_holm < 1 - LEVEL:
            return "higher" if self.mean > 0 else "lower"
        return "no difference seen"

    def __str__(self) -> str:
        name = self.metric.removeprefix("metric_")
        head = f"{name}, {_word(self.after)} against {_word(self.before)}"
        if self.verdict == "no pairs":
            return f"{head}: no clips of the same seed and picture to compare"
        if self.verdict == "one seed":
            return f"{head}: {self.mean:+.3g} with one seed: nothing can be said about luck"
        numbers = f"{self.mean:+.3g}, 95 % interval {self.low:+.3g} to {self.high:+.3g}"
        seen = f"no difference seen with {self.seeds} seeds" if self.verdict == "no difference seen" else self.verdict
        effect = "" if math.isinf(self.effect) else f"d = {self.effect:.2g}, "
        return f"{head}: {seen} ({numbers}; {effect}p = {self.p_holm:.2g} after Holm, {self.pairs} pairs)"


def differences(
    table: pd.DataFrame,
    axis: str,
    metrics: Sequence[str],
    axes: Sequence[str],
    pairs: Sequence[tuple[Any, Any]] | None = None,
) -> list[Difference]:
    """Compare values of an axis in pairs of clips that have all else in common.

    Args:
        table: one row a run.
        metrics: names of metrics, or columns.
        axes: all swept columns: what must agree within a pair.
        pairs: which values to compare (before, after); None: see `contrasts`.

    Returns:
        One a metric and pair of values. p is corrected for all of these together.
    """
    pairs = contrasts(table, axis) if pairs is None else pairs
    found = [_difference(table, axis, metric_column(table, metric), axes, pair) for metric in metrics for pair in pairs]
    corrected = holm([one.p for one in found])
    return [Difference(**{**one.__dict__, "p_holm": p}) for one, p in zip(found, corrected, strict=True)]


def contrasts(table: pd.DataFrame, axis: str) -> list[tuple[Any, Any]]:
    """The pairs of values that are compared, chosen before any metric is read.

    Of numbers: the lowest with the highest, and each with the next. Of other values: each with each, up to five of them;
    beyond, each with the first.
    """
    values = list(dict.fromkeys(value for value in plain(table, axis) if value is not None))
    if all(isinstance(value, (int, float)) for value in values) and axis != "seed":
        values.sort()
        ends = [(values[0], values[-1])] if len(values) > 2 else []
        return ends + list(pairwise(values))
    return list(combinations(values, 2)) if len(values) <= 5 else [(values[0], value) for value in values[1:]]


def _difference(table: pd.DataFrame, axis: str, column: str, axes: Sequence[str], pair: tuple[Any, Any]) -> Difference:
    values, amounts, seeds = plain(table, axis), amounts_of(table, column), seeds_of(table)
    others = [name for name in dict.fromkeys([*axes, *(("seed",) if "seed" in table else ())]) if name != axis]
    keys = {name: plain(table, name) for name in others}
    # An axis that changes with this one, as width with height, cannot agree.
    others = [name for name in others if name == "seed" or not _follows(values, keys[name])]
    sides: tuple[dict[Any, float], dict[Any, float]] = ({}, {})
    seed_of = {}
    for n, value in enumerate(values):
        key = tuple(keys[name][n] for name in others)
        seed_of[key] = seeds[n]
        for side, wanted in zip(sides, pair, strict=True):
            if value == wanted and not math.isnan(amounts[n]):
                side[key] = amounts[n]
    common = [key for key in sides[0] if key in sides[1]]
    found = np.array([sides[1][key] - sides[0][key] for key in common])
    clusters = [seed_of[key] for key in common]
    low, high = interval(found, clusters)
    by_seed = np.array(
        [np.mean([d for d, own in zip(found, clusters, strict=True) if own == one]) for one in dict.fromkeys(clusters)]
    )
    effect, p = _effect(by_seed)
    mean = float(found.mean()) if len(found) else math.nan
    return Difference(column, *pair, mean, low, high, effect, p, len(found), len(by_seed))


def _effect(by_seed: Numbers) -> tuple[float, float]:
    """(Cohen's d, p of the paired t-test) of the seeds' differences; NaN with fewer than two."""
    if len(by_seed) < 2:
        return math.nan, math.nan
    from scipy import stats

    mean, spread = float(by_seed.mean()), float(by_seed.std(ddof=1))
    if spread <= 1e-12 * max(1.0, abs(mean)):  # the same for every seed
        return (0.0, 1.0) if abs(mean) <= 1e-12 else (math.copysign(math.inf, mean), 0.0)
    return mean / spread, float(stats.ttest_1samp(by_seed, 0).pvalue)


def holm(p: Sequence[float]) -> list[float]:
    """p of many tests, corrected (Holm 1979): the chance of any false finding among them stays below the level. NaN stays NaN."""
    known = sorted((value, at) for at, value in enumerate(p) if not math.isnan(value))
    corrected, highest = [math.nan] * len(p), 0.0
    for rank, (value, at) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        corrected[at] = highest
    return corrected


def _follows(values: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether the other axis takes one value for each value of this one, and more than one in all."""
    return len(set(zip(values, others, strict=True))) == len(set(values)) and len(set(others)) > 1


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
