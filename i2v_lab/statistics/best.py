"""The best for the cost: the Pareto front, and the best within a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from i2v_lab.errors import InputError
from i2v_lab.statistics.columns import clip_seconds, metric_column, more_is_better, peak_memory

if TYPE_CHECKING:
    import pandas as pd


def pareto(quality: Sequence[float], cost: Sequence[float], *, more_is_better: bool = True) -> list[bool]:
    """The Pareto front: points that no other point beats in quality at the same cost or less. NaN is never on it."""
    gain = np.asarray(quality, np.float64) * (1 if more_is_better else -1)
    price = np.asarray(cost, np.float64)
    known = ~(np.isnan(gain) | np.isnan(price))
    beaten = [
        bool(np.any(known & (gain >= g) & (price <= c) & ((gain > g) | (price < c)))) for g, c in zip(gain, price, strict=True)
    ]
    return [bool(there) and not lost for there, lost in zip(known, beaten, strict=True)]


def cheapest(table: pd.DataFrame, quality: str, at_least: float) -> pd.Series[Any] | None:
    """The finished run that took the fewest seconds among those good enough; of equals, the one with less memory.

    Args:
        table: one row a run.
        quality: a metric: its column, metric_sharpness, or its name, sharpness.
        at_least: the lowest value that is good enough; if less is better (as for sharpness_loss), the highest.

    Returns:
        The row; None where no run is good enough.

    Raises:
        InputError: the table has no such column.
    """
    column = metric_column(table, quality)
    amounts = table[column].astype("float64")
    enough = amounts <= at_least if more_is_better(column) is False else amounts >= at_least
    good = table[(table["status"] == "done") & enough]
    if good.empty:
        return None
    ranked = good.assign(_seconds=clip_seconds(good), _memory=peak_memory(good)[0])
    return good.loc[ranked.sort_values(["_seconds", "_memory"], kind="stable").index[0]]


def best_within(
    table: pd.DataFrame, quality: str, *, seconds: float = math.inf, memory_gib: float = math.inf
) -> pd.Series[Any] | None:
    """The finished run of the best quality that cost no more than this; of equals, the one that took fewer seconds.

    Raises:
        InputError: the table has no such column, or neither more nor less of the metric is better (motion).
    """
    column = metric_column(table, quality)
    better = more_is_better(column)
    if better is None:
        raise InputError(f"quality: expected a metric of which more or less is better, got {quality!r}, which only says how much")
    done = table[(table["status"] == "done") & table[column].notna()]
    done = done.assign(_seconds=clip_seconds(done), _memory=peak_memory(done)[0])
    good = done[(done["_seconds"].fillna(math.inf) <= seconds) & (done["_memory"].fillna(math.inf) <= memory_gib)]
    if good.empty:
        return None
    return table.loc[good.sort_values([column, "_seconds"], ascending=[not better, True], kind="stable").index[0]]
