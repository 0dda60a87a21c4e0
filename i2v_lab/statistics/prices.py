"""What speed costs: each setting of the levers against its reference, over the seeds and pictures of a sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from i2v_lab.metrics.price import FIELDS
from i2v_lab.statistics.best import pareto
from i2v_lab.statistics.columns import Numbers, clip_seconds, peak_memory, plain, seeds_of
from i2v_lab.statistics.intervals import by_seed, interval, pooled

if TYPE_CHECKING:
    import pandas as pd

LIMITS = {"psnr": (0, 100), "first_frame_psnr": (0, 100), "ssim": (-1, 1), "vmaf": (0, 100), "motion_kept": (0, math.inf)}


def prices(table: pd.DataFrame, along: Sequence[str]) -> pd.DataFrame:
    """One row a setting of the levers, over all clips that were compared with their reference.

    Args:
        table: with the columns of `sweep.prices.with_prices`.
        along: the axes that make a setting; see `sweep.prices.priced_axes`.

    Returns:
        The axes; clips, seeds; time (seconds of a clip over those of its reference, the geometric mean), time_low, time_high;
        memory (the same of the peak); for each figure of a price its name, NAME_low, NAME_high: the mean, and the 95 % interval over seeds,
        NaN with fewer than three; front: no other setting is both as fast and as near (`nearness`), the reference itself included.
    """
    import pandas as pd

    values = list(zip(*(plain(table, axis) for axis in along), strict=True))
    compared = table["price_psnr"].notna().to_numpy()
    measures = {"time": _log_ratio(table, clip_seconds(table)), "memory": _log_ratio(table, peak_memory(table)[0])}
    measures |= {name: table[f"price_{name}"].to_numpy(np.float64) for name in FIELDS}
    settings = list(dict.fromkeys(value for value, there in zip(values, compared, strict=True) if there))
    places = {value: [n for n, own in enumerate(values) if own == value and compared[n]] for value in settings}
    seeds = seeds_of(table)
    rows: list[dict[str, object]] = [
        {**dict(zip(along, value, strict=True)), "clips": len(here), "seeds": len({seeds[n] for n in here})}
        for value, here in places.items()
    ]
    for name, amounts in measures.items():
        own = [_means(amounts, here, seeds) for here in places.values()]
        # Times spread alike in all settings. What is lost does not: a strong lever may turn one seed into another clip.
        spread = pooled([means for means in own if len(means)]) if name in ("time", "memory") else 0.0
        for row, means in zip(rows, own, strict=True):
            ends = (float(means.mean()) if len(means) else math.nan, *interval(means, spread))
            low, high = LIMITS.get(name, (-math.inf, math.inf))
            shown = np.exp(ends) if name in ("time", "memory") else np.clip(ends, low, high)
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(float, shown), strict=True))
    found = pd.DataFrame(rows)
    if len(found):
        front = pareto([*found[nearness(found)], 100.0], [*found["time"], 1.0])
        found["front"] = front[:-1]
    return found


def nearness(found: pd.DataFrame) -> str:
    """The figure by which settings are ranked: vmaf, or psnr where this machine's FFmpeg has no libvmaf."""
    return "vmaf" if found["vmaf"].notna().any() else "psnr"


def _means(amounts: Numbers, here: Sequence[int], seeds: Sequence[object]) -> Numbers:
    known = [n for n in here if math.isfinite(amounts[n])]
    return by_seed(amounts[known], [str(seeds[n]) for n in known])


def _log_ratio(table: pd.DataFrame, amounts: pd.Series[float]) -> Numbers:
    """The logarithm of an amount over that of the row's reference."""
    values = dict(zip(table.index, amounts, strict=True))
    pairs = [(values[row], values.get(other, math.nan)) for row, other in zip(table.index, table["reference"], strict=True)]
    return np.array([math.log(own / its) if own > 0 and its > 0 else math.nan for own, its in pairs], np.float64)
