"""Means over seeds, with intervals by Student's t."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from i2v_lab.metrics.registry import METRICS
from i2v_lab.statistics.columns import Numbers, amounts_of, metric_column, plain, seeds_of
from i2v_lab.statistics.shuffles import LEVEL

if TYPE_CHECKING:
    import pandas as pd

# Metrics with a few clips far from the rest: on clips of the closed-form model an interval from fewer seeds than this held the mean in
# less than 85 % (experiments/check_statistics.py --clips). Their values are shown instead.
INTERVAL_FROM = {"prompt_agreement": 5, "scene_right": 5, "scene_down": 5, "scene_zoom": 5} | dict.fromkeys(
    ("scene_turn", "smoothness", "warping_error", "frozen_frames", "repeated_frames"), math.inf
)
SEEDS_MIN = 3  # with two, both values say more than an interval that reaches from nowhere to nowhere


def by_seed(values: Sequence[float] | Numbers, seeds: Sequence[Hashable]) -> Numbers:
    """The mean of each seed, in the order in which the seeds first come."""
    groups: dict[Hashable, list[float]] = {}
    for value, seed in zip(values, seeds, strict=True):
        groups.setdefault(seed, []).append(float(value))
    return np.array([np.mean(found) for found in groups.values()], np.float64)


def pooled(settings: Sequence[Numbers]) -> float:
    """The standard deviation of a seed around the mean of its setting, over all settings; NaN where none has two seeds."""
    squares = sum(float(((own - own.mean()) ** 2).sum()) for own in settings if len(own))
    free = sum(len(own) - 1 for own in settings if len(own))
    return math.sqrt(squares / free) if free else math.nan


def interval(seeds: Sequence[float] | Numbers, spread: float = 0.0) -> tuple[float, float]:
    """95 % interval of the mean, (low, high), by Student's t; NaN with fewer than three seeds.

    Args:
        seeds: the mean of each seed, finite.
        spread: the pooled standard deviation of the settings that are compared. The larger of it and the setting's own is taken: a
            few seeds that happen to be alike would give an interval that is too narrow.
    """
    own = np.asarray(seeds, np.float64)
    if len(own) < SEEDS_MIN:
        return math.nan, math.nan
    from scipy import stats

    sd = max(float(own.std(ddof=1)), 0.0 if math.isnan(spread) else spread)
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(own) - 1)) * sd / math.sqrt(len(own))
    return float(own.mean()) - half, float(own.mean()) + half


def by_value(table: pd.DataFrame, axis: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Each metric at each value of an axis, over all seeds and whatever else was swept.

    Args:
        table: one row a run; those not done, and missing values, are left out.
        axis: a column. metrics: names of metrics, or columns.

    Returns:
        One row a metric and value: metric (the column), value, mean, spread (standard deviation of the clips; NaN for one),
        low, high (`metric_interval`, over seeds), clips, seeds.
    """
    import pandas as pd

    rows = []
    values, seeds = plain(table, axis), seeds_of(table)
    for metric in metrics:
        column = metric_column(table, metric)
        amounts = amounts_of(table, column)
        places = {value: [n for n, own in enumerate(values) if own == value and not math.isnan(amounts[n])] for value in values}
        own = {value: by_seed(amounts[here], [seeds[n] for n in here]) for value, here in places.items() if here}
        spread = pooled(list(own.values()))
        for value, means in own.items():
            found = amounts[places[value]]
            ends = metric_interval(column, means, spread)
            deviation = float(found.std(ddof=1)) if len(found) > 1 else math.nan
            rows.append((column, value, float(found.mean()), deviation, *ends, len(found), len(means)))
    return pd.DataFrame(rows, columns=["metric", "value", "mean", "spread", "low", "high", "clips", "seeds"])


def metric_interval(column: str, seeds: Numbers, spread: float = 0.0) -> tuple[float, float]:
    """`interval` for a metric: NaN where it would be too narrow (INTERVAL_FROM), and without what the metric can never be."""
    name = column.removeprefix("metric_")
    if len(seeds) < INTERVAL_FROM.get(name, SEEDS_MIN):
        return math.nan, math.nan
    low, high = interval(seeds, spread)
    known = METRICS.get(name)
    return (max(low, known.low), min(high, known.high)) if known and not math.isnan(low) else (low, high)
