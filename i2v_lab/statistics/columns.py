"""The columns of a table of runs that the statistics are made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from i2v_lab.errors import InputError
from i2v_lab.metrics.registry import METRICS

if TYPE_CHECKING:
    import pandas as pd

Numbers = npt.NDArray[np.float64]


def clip_seconds(table: pd.DataFrame) -> pd.Series[float]:
    """Wall seconds of each run, without loading the model: a sweep loads it once, and only its first cell would show that."""
    return (table["seconds_total"] - table["seconds_load"].fillna(0)).astype("float64")


def peak_memory(table: pd.DataFrame) -> tuple[pd.Series[float], str]:
    """(GiB of each run, what kind): VRAM allocated where it was measured, otherwise RAM of the process."""
    vram = table["peak_vram_allocated_gib"].astype("float64")
    return (vram, "peak VRAM, allocated") if vram.notna().any() else (table["peak_ram_gib"].astype("float64"), "peak RAM")


def metric_column(table: pd.DataFrame, quality: str) -> str:
    """The column of a metric, by its name or by the column's own.

    Raises:
        InputError: the table has no such column.
    """
    column = quality if quality in table.columns else f"metric_{quality}"
    if column not in table.columns:
        known = [name for name in table.columns if name.startswith("metric_")]
        raise InputError(f"quality: expected a metric of the table ({', '.join(known) or 'it has none yet'}), got {quality!r}")
    return column


def more_is_better(metric: str) -> bool | None:
    """As the metric's entry says, None where neither is; a column that is no metric of this package: more is better."""
    known = METRICS.get(metric.removeprefix("metric_"))
    return known.better if known else True


def plain(table: pd.DataFrame, column: str) -> list[Any]:
    if column not in table.columns:
        raise InputError(f"axis: expected a column of the table, got {column!r}")
    missing = table[column].isna().tolist()  # by pandas, which knows its NA
    return [None if gone else value for value, gone in zip(table[column].astype(object).tolist(), missing, strict=True)]


def amounts_of(table: pd.DataFrame, column: str) -> Numbers:
    """A metric of the runs that are done; NaN for others."""
    values = np.array(table[column].astype("float64"), np.float64)
    values[(table["status"] != "done").to_numpy()] = math.nan
    return values


def seeds_of(table: pd.DataFrame) -> list[Any]:
    return plain(table, "seed") if "seed" in table.columns else [None] * len(table)
