"""A table of runs as an array: levels of each axis x blocks x metrics. A block is a seed, or a picture and a seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from i2v_lab.statistics.columns import Numbers, amounts_of, metric_column, plain

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Axis:
    """A swept column.

    Attributes:
        values: its levels, in order.
        ordered: whether they have an order (numbers, resolutions), so that a trend makes sense.
        along: other swept columns that change with it: their effects cannot be told apart.
    """

    name: str
    values: tuple[Any, ...]
    ordered: bool
    along: tuple[str, ...] = ()


@dataclass(frozen=True)
class Design:
    """A sweep as an array.

    Attributes:
        axes: those with several values.
        metrics: columns of the table.
        y: (levels of axis 1, ..., levels of axis q, blocks, metrics); NaN where a clip or its metric is missing.
        blocks: (picture, seed) of each block; the picture is None where pictures are an axis, or there is only one.
        fixed: whether every seed gave the same clip, in each setting that has several.
    """

    axes: tuple[Axis, ...]
    metrics: tuple[str, ...]
    y: Numbers
    blocks: tuple[tuple[Any, Any], ...]
    fixed: bool

    @property
    def seeds(self) -> int:
        return len({seed for _, seed in self.blocks})

    @property
    def pictures(self) -> int:
        return len({picture for picture, _ in self.blocks})


def design(
    table: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str], orders: Mapping[str, Sequence[Any]] | None = None
) -> Design:
    """The runs that are done, arranged. Of several runs of one cell the last row counts.

    Args:
        axes: the swept columns. Pictures are an axis where nothing else was swept; otherwise they make blocks with the seeds.
        metrics: names, or columns.
        orders: {axis: its values in order}, for axes that are no numbers but have an order (resolution).
    """
    columns = tuple(metric_column(table, name) for name in metrics)
    found = _axes(table, axes, orders or {})
    number = [{value: place for place, value in enumerate(axis.values)} for axis in found]
    values = [plain(table, axis.name) for axis in found]
    seeds = plain(table, "seed") if "seed" in table else [None] * len(table)
    several = "image" in table and "image" in axes and "image" not in [axis.name for axis in found]
    pictures = plain(table, "image") if several else [None] * len(table)
    blocks = tuple(dict.fromkeys(zip(pictures, seeds, strict=True)))
    block = {name: place for place, name in enumerate(blocks)}
    y = np.full((*(len(axis.values) for axis in found), len(blocks), len(columns)), math.nan)
    amounts = np.stack([amounts_of(table, column) for column in columns], -1) if columns else np.empty((len(table), 0))
    done = (table["status"] == "done").tolist()
    hashes = plain(table, "frames_sha256") if "frames_sha256" in table else [None] * len(table)
    clips: dict[tuple[Any, ...], set[Any]] = {}
    for row, finished in enumerate(done):
        point = tuple(of[own[row]] for of, own in zip(number, values, strict=True) if own[row] is not None)
        if finished and len(point) == len(found):
            y[(*point, block[pictures[row], seeds[row]])] = amounts[row]
            clips.setdefault((*point, pictures[row]), set()).add(hashes[row] or tuple(amounts[row].tolist()))
    many = len({seed for _, seed in blocks}) > 1
    return Design(found, columns, y, blocks, many and all(len(same) == 1 for same in clips.values()))


def _axes(table: pd.DataFrame, axes: Sequence[str], orders: Mapping[str, Sequence[Any]]) -> tuple[Axis, ...]:
    several = {name: values for name in axes if name != "seed" and len(set(values := plain(table, name)) - {None}) > 1}
    names = [name for name in several if name != "image"] or list(several)
    found: list[Axis] = []
    for name in names:
        own = several[name]
        if any(len(set(zip(several[other.name], own, strict=True))) == len(set(several[other.name])) for other in found):
            continue  # it follows an axis before it
        along = tuple(
            other for other in names if other != name and len(set(zip(own, several[other], strict=True))) == len(set(own))
        )
        present = [value for value in dict.fromkeys(own) if value is not None]
        ordered = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in present)
        given = [value for value in orders.get(name, ()) if value in present]
        found.append(Axis(name, tuple(sorted(present) if ordered else given or present), ordered or bool(given), along))
    return tuple(found)
