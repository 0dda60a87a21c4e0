"""Means over seeds, with intervals by bootstrap."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from i2v_lab.statistics.columns import Numbers, amounts_of, metric_column, plain, seeds_of

if TYPE_CHECKING:
    import pandas as pd

RESAMPLES = 10_000
LEVEL = 0.95


def interval(values: Sequence[float] | Numbers, clusters: Sequence[Hashable] | None = None) -> tuple[float, float]:
    """95 % interval of the mean, by bootstrap: (low, high); NaN where there are fewer than two clusters.

    Whole clusters are drawn with replacement, 10,000 times. The percentiles are those of the expanded percentile
    interval (Hesterberg 2015, What Teachers Should Know About the Bootstrap, section 5.2), since plain ones are too narrow
    for few values: with up to three clusters it reaches from the lowest to the highest mean that can be drawn.

    Args:
        values: finite numbers.
        clusters: which of them belong together (the seed of each); None: each is its own.
    """
    values = np.asarray(values, np.float64)
    names = {name: number for number, name in enumerate(dict.fromkeys(clusters if clusters is not None else range(len(values))))}
    at = [names[name] for name in clusters] if clusters is not None else list(range(len(values)))
    many = len(names)
    if many < 2:
        return math.nan, math.nan
    from scipy import stats

    sums, counts = np.bincount(at, values, many), np.bincount(at, minlength=many)
    drawn = np.random.default_rng(0).integers(0, many, (RESAMPLES, many))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    tail = float(stats.norm.cdf(math.sqrt(many / (many - 1)) * stats.t.ppf((1 - LEVEL) / 2, many - 1)))
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def by_value(table: pd.DataFrame, axis: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Each metric at each value of an axis, over all seeds and whatever else was swept.

    Args:
        table: one row a run; those not done, and missing values, are left out.
        axis: a column. metrics: names of metrics, or columns.

    Returns:
        One row a metric and value: metric (the column), value, mean, spread (standard deviation of the clips; NaN for one),
        low, high (95 % interval of the mean, over seeds; NaN with one seed), clips, seeds.
    """
    import pandas as pd

    rows = []
    values = plain(table, axis)
    for metric in metrics:
        column = metric_column(table, metric)
        amounts, seeds = amounts_of(table, column), seeds_of(table)
        for value in dict.fromkeys(values):
            here = [n for n, own in enumerate(values) if own == value and not math.isnan(amounts[n])]
            if here:
                found, own_seeds = amounts[here], [seeds[n] for n in here]
                low, high = interval(found, own_seeds)
                spread = float(found.std(ddof=1)) if len(found) > 1 else math.nan
                rows.append((column, value, float(found.mean()), spread, low, high, len(found), len(set(own_seeds))))
    return pd.DataFrame(rows, columns=["metric", "value", "mean", "spread", "low", "high", "clips", "seeds"])
