"""What a page can sort, filter and mark clips by: the axes with their values, and the numbers of the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from i2v_lab.errors import InputError
from i2v_lab.report.player.grid import plain_values, value_order, value_texts

if TYPE_CHECKING:
    import pandas as pd

BestIs = Literal["lowest", "highest"]

# Columns of numbers that say nothing about a clip.
_NOT_FACTS = frozenset(["pid", "cell", "padded_rows", "padded_columns", "requested_tier"])


def axes_data(table: pd.DataFrame, axes: Sequence[str]) -> list[dict[str, Any]]:
    """The axes with more than one value, each with its values as texts, in order, for player.js."""
    found = []
    for axis in dict.fromkeys(axes):
        values = value_order(axis, plain_values(table, axis))
        if len(values) > 1:
            found.append({"name": axis, "values": value_texts(axis, values)})
    return found


def number_columns(table: pd.DataFrame) -> list[str]:
    """Columns of numbers that differ between runs: cost first, then metrics, then all others."""
    names = [str(name) for name in table.select_dtypes("number") if str(name) not in _NOT_FACTS]
    differ = [name for name in names if len({value for value in map(_number, table[name].tolist()) if value is not None}) > 1]
    return sorted(differ, key=_precedence)


def numbers_of(run: Mapping[str, Any], columns: Sequence[str]) -> dict[str, float]:
    """Those of the columns that have a finite number in this run."""
    found = {name: _number(run.get(name)) for name in columns}
    return {name: value for name, value in found.items() if value is not None}


def check_best(table: pd.DataFrame, best: str, best_is: BestIs | None = None) -> dict[str, str] | None:
    """The column that the best clip is marked by, for player.js; None where none was named, or all its values are equal.

    Args:
        best: a column of numbers, or a metric without its metric_.
        best_is: which of its values is the best; None for a column where it is known: metrics, seconds, memory and bytes.

    Raises:
        InputError: no column of numbers has this name; `best_is` is another word, or was not given and is not known.
    """
    if best_is not in (None, "lowest", "highest"):
        raise InputError(f"best_is: expected lowest or highest, got {best_is!r}")
    if not best:
        return None
    columns = number_columns(table)
    column = best if best in table.columns else f"metric_{best}"
    if column not in table.columns:
        raise InputError(f"best: expected a column of numbers ({', '.join(columns) or 'none differs here'}), got {best!r}")
    found = best_is or _known_best(column)
    if found is None:
        raise InputError(f"best_is: expected lowest or highest, since it is not known which is better for {column}; got nothing")
    return {"column": column, "is": found} if column in columns else None


def _known_best(column: str) -> BestIs | None:
    from i2v_lab.metrics.registry import METRICS

    if column.startswith(("seconds_", "peak_", "predicted_", "file_bytes")):
        return "lowest"
    known = METRICS.get(column.removeprefix("metric_"))
    if known is None or known.better is None:
        return None
    return "highest" if known.better else "lowest"


def _precedence(name: str) -> int:
    order = ("seconds_total", "seconds_", "peak_", "predicted_", "metric_")
    return next((place for place, start in enumerate(order) if name.startswith(start)), len(order))


def _number(value: Any) -> float | int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):  # NA, None
        return None
    if not math.isfinite(number):
        return None
    return int(value) if number.is_integer() and abs(number) < 2**53 else number
