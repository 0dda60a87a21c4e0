"""The best for the cost: settings over their seeds, those that no other beats, and the best within a limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from i2v_lab.errors import InputError
from i2v_lab.statistics.columns import Numbers, amounts_of, clip_seconds, metric_column, more_is_better, peak_memory, plain
from i2v_lab.statistics.intervals import by_seed, interval, metric_interval, pooled
from i2v_lab.statistics.shuffles import half_width

if TYPE_CHECKING:
    import pandas as pd

Cost = Literal["seconds", "memory"]


def settings(table: pd.DataFrame, axes: Sequence[str], quality: str, cost: str = "seconds") -> pd.DataFrame:
    """The quality and the cost of each setting of a sweep, over its seeds and pictures.

    Settings are compared over the same seeds and pictures: those for which every setting has a clip. A setting with clips of fewer
    than half of them is compared with none.

    Args:
        axes: the columns that make a setting; seed and image are none where there are others.
        quality: a metric whose higher or lower values are better. cost: "seconds" or "memory" (GiB).

    Returns:
        One row a setting: its axes; mean, low, high (of the quality; the interval is over seeds); cost (mean), cost_low, cost_high;
        clips, seeds, missing (clips that failed or were not measured); run (the index in `table` of its first clip);
        front (no setting has a better mean at the same mean cost or less); beaten (one has for sure: the difference is more than
        chance, with one error in 20 over all settings). A setting that is not compared has NaN, front and beaten are False.

    Raises:
        InputError: a metric or an axis that is not there, a metric without a better side, or another cost.
    """
    import pandas as pd

    column = metric_column(table, quality)
    better = more_is_better(column)
    if better is None:
        raise InputError(f"quality: expected a metric of which more or less is better, got {quality!r}, which only says how much")
    if cost not in ("seconds", "memory"):
        raise InputError(f"cost: expected seconds or memory, got {cost!r}")
    price = (clip_seconds(table) if cost == "seconds" else peak_memory(table)[0]).to_numpy(np.float64)
    names = [axis for axis in axes if axis not in ("seed", "image")] or [axis for axis in axes if axis != "seed"]
    values = list(zip(*(plain(table, axis) for axis in names), strict=True)) if names else [()] * len(table)
    order, blocks, cells, first = _cells(values, _blocks(table, names), np.stack([amounts_of(table, column), price], -1))
    there = ~np.isnan(cells[..., 0])
    compared, common = _in_common(there)
    kept, seeds = cells[:, common], [seed for (_, seed), own in zip(blocks, common, strict=True) if own]
    spreads = [pooled([by_seed(own, seeds) for own in kept[compared][..., which]]) for which in (0, 1)]
    rows = []
    for place, value in enumerate(order):
        ends = [math.nan] * 6
        if compared[place] and common.any():
            means = [by_seed(kept[place, :, which], seeds) for which in (0, 1)]
            quality_ends = metric_interval(column, means[0], spreads[0])
            ends = [float(means[0].mean()), *quality_ends, float(means[1].mean()), *interval(means[1], spreads[1])]
        many = len({seed for (_, seed), own in zip(blocks, there[place], strict=True) if own})
        missing = sum(own == value for own in values) - int(there[place].sum())
        run = table.index[first[value]] if value in first else None
        rows.append([*value, *ends, int(there[place].sum()), many, missing, run])
    shown = ["mean", "low", "high", "cost", "cost_low", "cost_high", "clips", "seeds", "missing", "run"]
    found = pd.DataFrame(rows, columns=[*names, *shown])
    front = pareto(found["mean"].tolist(), found["cost"].tolist(), more_is_better=better)
    beaten = np.zeros(len(order), bool)
    beaten[compared] = _beaten(kept[compared] * [1 if better else -1, 1])
    return found.assign(front=np.array(front, bool), beaten=beaten)


def _cells(values: Sequence[Any], blocks: Sequence[Any], amounts: Numbers) -> tuple[list[Any], list[Any], Numbers, dict[Any, int]]:
    """(settings, blocks, (settings, blocks, 2): quality and cost, NaN where one is missing, {setting: its first row with both})."""
    order, numbers = list(dict.fromkeys(values)), {block: place for place, block in enumerate(dict.fromkeys(blocks))}
    place = {value: number for number, value in enumerate(order)}
    cells: Numbers = np.full((len(order), len(numbers), 2), math.nan)
    first: dict[Any, int] = {}
    for row, (value, block) in enumerate(zip(values, blocks, strict=True)):
        if not np.isnan(amounts[row]).any():
            cells[place[value], numbers[block]] = amounts[row]
            first.setdefault(value, row)
    return order, list(numbers), cells, first


def _in_common(there: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """(the settings that are compared, the blocks that all of these have); there (settings, blocks)."""
    many = there.sum(1)
    compared = (many * 2 >= max(int(there.any(0).sum()), 1)) & (many > 0)
    if not (compared.any() and there[compared].all(0).any()):  # those with the most alone
        compared = (many == many.max(initial=1)) & (many > 0)
    return compared, there[compared].all(0) if compared.any() else np.zeros(there.shape[1], bool)


def _blocks(table: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, Any]]:
    """(picture, seed) of each row."""
    pictures = plain(table, "image") if "image" in table and "image" not in names else [None] * len(table)
    return list(zip(pictures, plain(table, "seed") if "seed" in table else [None] * len(table), strict=True))


def _beaten(cells: Numbers) -> Numbers:
    """Which settings another one beats for sure; cells (settings, blocks, 2): quality (more is better) and cost."""
    if cells.shape[1] < 2 or len(cells) < 2:
        return np.zeros(len(cells), bool)
    gain, price = cells[..., 0], np.log(np.maximum(cells[..., 1], 1e-9))  # times and sizes vary in proportion
    better = gain.mean(1)[:, None] - gain.mean(1)[None]  # of the row over the column
    cheaper = price.mean(1)[None] - price.mean(1)[:, None]
    gains, prices = half_width(gain, 0.975), half_width(price, 0.975)
    beats = ((better > gains) & (cheaper >= -prices)) | ((cheaper > prices) & (better >= 0))
    return np.asarray(beats.any(0))


def pareto(quality: Sequence[float], cost: Sequence[float], *, more_is_better: bool = True) -> list[bool]:
    """The Pareto front: points that no other point beats in quality at the same cost or less. NaN is never on it."""
    gain = np.asarray(quality, np.float64) * (1 if more_is_better else -1)
    price = np.asarray(cost, np.float64)
    known = ~(np.isnan(gain) | np.isnan(price))
    beaten = [
        bool(np.any(known & (gain >= g) & (price <= c) & ((gain > g) | (price < c)))) for g, c in zip(gain, price, strict=True)
    ]
    return [bool(there) and not lost for there, lost in zip(known, beaten, strict=True)]


def cheapest(table: pd.DataFrame, axes: Sequence[str], quality: str, at_least: float) -> pd.Series[Any] | None:
    """The setting that takes the fewest seconds a clip among those good enough; of equals, the one with less memory.

    A setting is judged by its mean over seeds. Those whose whole interval is good enough come first.

    Args:
        table: one row a run. axes: the swept columns.
        quality: a metric: its column, metric_sharpness, or its name, sharpness.
        at_least: the lowest value that is good enough; if less is better (as for sharpness_loss), the highest.

    Returns:
        A row of `settings`, with memory (GiB) and sure (whether the whole interval is good enough; False with fewer than three
        seeds); None where no setting is good enough.

    Raises:
        InputError: as for `settings`.
    """
    found = _with_memory(table, axes, quality)
    less = more_is_better(metric_column(table, quality)) is False
    found = found[(found["mean"] <= at_least) if less else (found["mean"] >= at_least)]
    found = found.assign(sure=(found["high"] <= at_least) if less else (found["low"] >= at_least))
    ranked = found.sort_values(["sure", "cost", "memory"], ascending=[False, True, True], kind="stable")
    return None if ranked.empty else ranked.iloc[0]


def best_within(
    table: pd.DataFrame, axes: Sequence[str], quality: str, *, seconds: float = math.inf, memory_gib: float = math.inf
) -> pd.Series[Any] | None:
    """The setting of the best mean quality that costs no more than this; of equals, the one that takes fewer seconds.

    Returns:
        A row of `settings`, with memory (GiB); None where no setting is within the limits.

    Raises:
        InputError: as for `settings`.
    """
    found = _with_memory(table, axes, quality)
    within = (found["cost"] <= seconds) & (found["memory"].fillna(math.inf) <= memory_gib) & found["mean"].notna()
    less = more_is_better(metric_column(table, quality)) is False
    ranked = found[within].sort_values(["mean", "cost"], ascending=[less, True], kind="stable")
    return None if ranked.empty else ranked.iloc[0]


def _with_memory(table: pd.DataFrame, axes: Sequence[str], quality: str) -> pd.DataFrame:
    return settings(table, axes, quality).assign(memory=settings(table, axes, quality, "memory")["cost"])
