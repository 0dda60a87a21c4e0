"""What a tune is after: goals and limits, and their figures in a table of runs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from i2v_lab.errors import SweepError, meant, short
from i2v_lab.metrics.registry import METRICS
from i2v_lab.statistics import clip_seconds
from i2v_lab.sweep.axes import check_names

if TYPE_CHECKING:
    import pandas as pd

    from i2v_lab.cost import Forecast

VOTES = "votes"
COSTS = {
    "seconds_total": "",
    "peak_vram_gib": "peak_vram_allocated_gib",
    "peak_ram_gib": "peak_ram_gib",
    "file_bytes": "file_bytes",
}
"""Figures beside the metrics, less is better; and their columns. Seconds are those of a clip without loading the model."""
NAMES = (*METRICS, *COSTS)
_LIMIT = re.compile(r"\s*(\w+)\s*(<=|>=|<|>)\s*([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*")
_WAYS = {"up": True, "down": False}


@dataclass(frozen=True)
class Goal:
    """A figure that should be high (`up`) or low."""

    figure: str
    up: bool


@dataclass(frozen=True)
class Limit:
    """A figure that must be at most (`most`) or at least this value."""

    figure: str
    most: bool
    value: float

    def broken_by(self, value: float | None) -> bool:
        """Whether a value breaks it; one that is not known does not."""
        if value is None or math.isnan(value):
            return False
        return value > self.value if self.most else value < self.value

    def __str__(self) -> str:
        return f"{self.figure} {'<=' if self.most else '>='} {self.value:g}"


def goals(given: Any) -> tuple[Goal, ...]:
    """The goals as they are written: a name, a list of names, or {name: up or down}; of `votes` none is a figure.

    Raises:
        SweepError: one line: an unknown figure, a figure without a better side, or another word than up and down.
    """
    if given == VOTES:
        return ()
    named: Mapping[Any, Any]
    if isinstance(given, Mapping):
        named = given
    elif isinstance(given, Sequence) and not isinstance(given, str):
        named = {str(name): None for name in given}
    else:
        named = {str(given): None}
    if not named or "" in named:
        raise SweepError(
            "goal: expected a figure such as prompt_agreement, {sharpness: up, seconds_total: down}, or votes; got none"
        )
    found = []
    for name, way in named.items():
        if name not in NAMES:
            raise SweepError(f"goal: {name}: unknown figure; {meant(name, (*NAMES, VOTES))}")
        if way is not None and way not in _WAYS:
            raise SweepError(f"goal: {name}: expected up or down, got {short(way)}")
        better = _WAYS[way] if way is not None else False if name in COSTS else METRICS[name].better
        if better is None:
            raise SweepError(f"goal: {name}: neither more nor less of it is better; write {{{name}: up}} or {{{name}: down}}")
        found.append(Goal(name, better))
    return tuple(found)


def limits(given: Sequence[str]) -> tuple[Limit, ...]:
    """The limits as they are written: `peak_vram_gib <= 12`.

    Raises:
        SweepError: one line.
    """
    found = []
    for text in given:
        if not (match := _LIMIT.fullmatch(str(text))):
            raise SweepError(f"limits: expected such as seconds_total <= 60 or motion >= 2, got {short(text)}")
        check_names("limits", [match[1]], NAMES, "figure")
        try:
            value = float(match[3])
        except ValueError:
            raise SweepError(f"limits: expected a number after {match[2]}, got {match[3]!r}") from None
        found.append(Limit(match[1], match[2].startswith("<"), value))
    return tuple(found)


def figures(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """These figures of each run of a table, NaN where one is missing or the run has no clip; and seconds, what a clip took."""
    import pandas as pd

    done = (table["status"] == "done").to_numpy()
    found = {"seconds": clip_seconds(table)}
    for name in names:
        column = COSTS.get(name, f"metric_{name}")
        found[name] = found["seconds"] if name == "seconds_total" else table.get(column, pd.Series(math.nan, table.index))
    return pd.DataFrame({name: column.astype("float64").where(done) for name, column in found.items()}, index=table.index)


def predicted(forecast: Forecast, figure: str) -> float | None:
    """What the planner knows of a figure before the clip is made; None where it knows nothing."""
    if figure == "seconds_total":
        return forecast.time.expected if forecast.time else None
    return forecast.peak_gib if figure == ("peak_ram_gib" if forecast.device == "cpu" else "peak_vram_gib") else None
