"""Clips to see together: any table of runs, or any files of clips, with the axes in which they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.report.player.assets import said
from i2v_lab.report.player.facts import BestIs, check_best
from i2v_lab.report.player.given import FILE_PARAMS, table_of
from i2v_lab.report.player.grid import Grid, Label, arrange, check_axes, plain_values, text_of, value_texts

if TYPE_CHECKING:
    import pandas as pd

CELLS_MAX = 1000  # clips that one view shows
FIELDS = tuple(ClipParams.model_fields)
# Shown once for all clips, where they are the same in all.
BASIC = [name for name, field in ClipParams.model_fields.items() if (field.json_schema_extra or {}).get("basic")]  # type: ignore[union-attr]


@dataclass(frozen=True)
class View:
    """Clips with their places.

    Attributes:
        table: one row a clip.
        axes: the columns in which they differ.
        grid: the place of each clip.
        notes: remarks for the reader.
        best: the column that the best clip is marked by, for player.js.
        reference: {axis: value} of the clips that the others are compared with; {}: those without a lever and with the most steps.
        plain: without tools and remarks, for a blind comparison.
    """

    table: pd.DataFrame
    axes: tuple[str, ...]
    grid: Grid
    notes: tuple[Any, ...] = ()
    best: dict[str, str] | None = None
    reference: Mapping[str, Any] = field(default_factory=dict)
    plain: bool = False


def clip_view(
    runs: Any,
    *,
    axes: Sequence[str] | None = None,
    rows: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
    best: str = "",
    best_is: BestIs | None = None,
    reference: Mapping[str, Any] | None = None,
    fps: float = 8,
) -> View:
    """The view of a table of runs or of some files; arguments as for `compare`."""
    table, notes = table_of(runs, fps), list[Any]()
    marked = check_best(table, best, best_is)
    if not len(table):
        notes.append(said("no_runs"))
    if len(table) > CELLS_MAX:
        notes.append(said("newest", shown=CELLS_MAX, all=len(table)))
        table = table.tail(CELLS_MAX)
    table = table.reset_index(drop=True)
    found = _axes(table) if axes is None else list(axes)
    check_axes(table, found)
    if axes is None and _repeated(table, found):
        name = "file" if "file" in table.columns else "run"
        table, found = table.assign(**{name: _names(table)}), list(dict.fromkeys([*found, name]))
    if rows is None and columns is None and _sparse(table, found):
        columns = found  # one after the other
    grid = arrange(table, found, rows=rows, columns=columns)
    if not grid.common:
        grid = replace(grid, common=_common(table, found))
    return View(table, tuple(found), grid, tuple(notes), marked, reference or {})


def _axes(table: pd.DataFrame) -> list[str]:
    """What the clips are called by: the parameters that differ; the names that the user gave; or, of files without params, their names."""
    named = [name for name in ("name", "file") if name in table.columns and FILE_PARAMS in table.columns]
    whole = not named or ("name" not in named and len(table) > 1 and all(table[FILE_PARAMS]))
    return differing(table) if whole else named[:1]


def differing(table: pd.DataFrame) -> list[str]:
    """The parameters that have more than one value in the table, in the order of ClipParams."""
    return [name for name in FIELDS if name in table.columns and len(set(plain_values(table, name))) > 1]


def _repeated(table: pd.DataFrame, axes: Sequence[str]) -> bool:
    """Whether two rows have the same values on all axes."""
    keys = list(zip(*(plain_values(table, axis) for axis in axes), strict=True)) if axes else [()] * len(table)
    return len(set(keys)) < len(keys)


def _names(table: pd.DataFrame) -> list[str]:
    """A name for each row: that of its file or its run, with a number where several rows have it."""
    columns = [plain_values(table, name) for name in ("file", "clip", "id") if name in table.columns]
    names = [next((Path(text_of(value)).name for value in found if text_of(value)), "run") for found in zip(*columns, strict=True)]
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]


def _sparse(table: pd.DataFrame, axes: Sequence[str]) -> bool:
    """Whether a grid of rows and columns would have many gaps."""
    grid = arrange(table, axes)
    return not grid.wraps and len(grid.cells) < 0.6 * len(grid.rows) * len(grid.columns)


def _common(table: pd.DataFrame, axes: Sequence[str]) -> Label:
    """The main parameters, where they are the same in all clips."""
    if not len(table):
        return ()
    common = []
    for name in BASIC:
        if name in table.columns and name not in axes:
            (value, *others) = dict.fromkeys(plain_values(table, name))
            if not others and value not in (None, ""):
                common.append((name, value_texts(name, [value])[0]))
    return tuple(common)
