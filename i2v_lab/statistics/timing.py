"""Times of clips: which count, whether the machine's speed drifted, and which loads can be compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from i2v_lab.statistics.columns import clip_seconds, plain
from i2v_lab.statistics.shuffles import DRAWS, LEVEL

if TYPE_CHECKING:
    import pandas as pd

_SHAPE = ("pid", "model", "dtype", "resolution", "num_frames")
_SMALL = 0.02  # a drift of less is of no interest


@dataclass(frozen=True)
class Drift:
    """How the time of a clip changed from the beginning to the end of a sweep, other things equal.

    Attributes:
        change: 0.2 for 20 % more at the end. p: of a permutation test, never 0.
    """

    change: float
    p: float

    @property
    def seen(self) -> bool:
        return self.p <= 1 - LEVEL and abs(self.change) >= _SMALL


def warm(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """The runs whose times count: without the first clip of each shape in a process, where its setting has other clips."""
    cold = _cold(table, axes)
    return table[[row not in cold for row in range(len(table))]]


def as_warm(table: pd.DataFrame, axes: Sequence[str]) -> pd.DataFrame:
    """All runs, where one that `warm` leaves out has the mean time of the other clips of its setting: its metrics count all the same."""
    cold = _cold(table, axes)
    if not cold:
        return table
    settings, seconds = _settings(table, axes), clip_seconds(table).where(table["status"] == "done").to_numpy(np.float64)
    own = seconds.copy()
    for row in cold:
        own[row] = np.nanmean([seconds[at] for at in range(len(table)) if settings[at] == settings[row] and at not in cold])
    return table.assign(seconds_total=own, seconds_load=0.0)


def _cold(table: pd.DataFrame, axes: Sequence[str]) -> set[int]:
    """Rows of the first clips of a shape whose setting has other clips that are done."""
    if "created" not in table:
        return set()
    if "first_of_shape" in table and table["first_of_shape"].notna().any():
        cold = {row for row, first in enumerate(plain(table, "first_of_shape")) if first}
    else:  # runs of older versions
        cold = _first_of_shape(table)
    settings = _settings(table, axes)
    done = (table["status"] == "done").tolist()
    others = {settings[row] for row in range(len(table)) if done[row] and row not in cold}
    return {row for row in cold if settings[row] in others}


def _first_of_shape(table: pd.DataFrame) -> set[int]:
    keys = list(zip(*(plain(table, name) for name in _SHAPE if name in table), strict=True)) or [()] * len(table)
    done = (table["status"] == "done").tolist()
    first: dict[Any, int] = {}
    for row in np.argsort(table["created"].to_numpy(), kind="stable").tolist():
        if done[row]:
            first.setdefault(keys[row], row)
    return set(first.values())


def drift(table: pd.DataFrame, axes: Sequence[str]) -> Drift | None:
    """Whether clips took longer and longer, by the order in which they were made; None where that cannot be known.

    Logarithms of seconds against the place in the order, both less the mean of their setting; shuffled within settings.
    """
    if "created" not in table:
        return None
    table = table[(table["status"] == "done") & clip_seconds(table).gt(0)]
    settings = _settings(table, axes)
    numbers = {setting: [row for row, own in enumerate(settings) if own == setting] for setting in dict.fromkeys(settings)}
    place = np.argsort(np.argsort(table["created"].to_numpy(), kind="stable")) / max(len(table) - 1, 1)
    amounts = np.log(clip_seconds(table).to_numpy(np.float64))
    x, y = np.zeros(len(table)), np.zeros(len(table))
    for rows in numbers.values():
        x[rows], y[rows] = place[rows] - place[rows].mean(), amounts[rows] - amounts[rows].mean()
    if sum(len(rows) - 1 for rows in numbers.values()) < 5 or not x.any():
        return None
    rng = np.random.default_rng(0)
    slopes = np.full(DRAWS, x @ y)
    for draw in range(1, DRAWS):
        slopes[draw] = sum(float(x[rows] @ rng.permutation(y[rows])) for rows in numbers.values())
    p = float((np.abs(slopes) >= abs(slopes[0]) * (1 - 1e-9)).mean())
    return Drift(math.expm1(float(slopes[0] / (x @ x))), p)


def visited_apart(table: pd.DataFrame, axis: str) -> bool:
    """Whether two values of an axis were never run around each other: their times cannot be told from drift."""
    if "created" not in table:
        return False
    values, moments = plain(table, axis), table["created"].tolist()
    spans = {}
    for value in dict.fromkeys(values):
        own = [moment for moment, one in zip(moments, values, strict=True) if one == value]
        spans[value] = (min(own), max(own))
    return max(start for start, _ in spans.values()) > min(end for _, end in spans.values()) if spans else False


def _settings(table: pd.DataFrame, axes: Sequence[str]) -> list[tuple[Any, ...]]:
    names = [axis for axis in axes if axis != "seed"]
    return list(zip(*(plain(table, name) for name in names), strict=True)) if names else [()] * len(table)
