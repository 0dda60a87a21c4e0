"""Clips to see together: any table of runs, or any files of clips, with the axes in which they differ."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab.clip import video
from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import ClipError, InputError, ParamsError, printable
from i2v_lab.report.player.facts import BestIs, check_best
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
        plain: without tools and remarks, for a blind comparison.
    """

    table: pd.DataFrame
    axes: tuple[str, ...]
    grid: Grid
    notes: tuple[str, ...] = ()
    best: dict[str, str] | None = None
    plain: bool = False


def clip_view(
    runs: pd.DataFrame | Sequence[Any],
    *,
    axes: Sequence[str] | None = None,
    rows: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
    best: str = "",
    best_is: BestIs | None = None,
) -> View:
    """The view of a table of runs or of some files; arguments as for `compare`."""
    table, notes = _table(runs), []
    marked = check_best(table, best, best_is)
    if not len(table):
        notes.append("There are no runs yet: make a clip in studio.ipynb, or with i2v-lab generate.")
    if len(table) > CELLS_MAX:
        notes.append(f"The newest {CELLS_MAX} of {len(table)} runs are shown: choose fewer of them.")
        table = table.tail(CELLS_MAX)
    table = table.reset_index(drop=True)
    found = differing(table) if axes is None else list(axes)
    check_axes(table, found)
    if axes is None and _repeated(table, found):
        name = "file" if "file" in table.columns else "run"
        table, found = table.assign(**{name: _names(table)}), [*found, name]
    if rows is None and columns is None and _sparse(table, found):
        columns = found  # one after the other
    grid = arrange(table, found, rows=rows, columns=columns)
    if not grid.common:
        grid = replace(grid, common=_common(table, found))
    return View(table, tuple(found), grid, tuple(notes), marked)


def differing(table: pd.DataFrame) -> list[str]:
    """The parameters that have more than one value in the table, in the order of ClipParams."""
    return [name for name in FIELDS if name in table.columns and len(set(plain_values(table, name))) > 1]


def _table(runs: Any) -> pd.DataFrame:
    import pandas as pd

    if isinstance(runs, pd.DataFrame):
        if "clip" not in runs.columns:
            raise InputError(
                f"compare: expected a table with a column clip, such as runs() gives; got {', '.join(map(str, runs.columns)) or 'none'}"
            )
        return runs
    if isinstance(runs, (str, os.PathLike)):
        runs = [runs]
    if not isinstance(runs, Sequence):
        raise InputError(f"compare: expected a table of runs or a list of clips' files, got {type(runs).__name__}")
    if wrong := [item for item in runs if not isinstance(item, (str, os.PathLike))]:
        raise InputError(f"compare: expected files of clips, got {str(wrong[0])[:80]!r}")
    paths = [Path(os.fspath(item)) for item in runs]
    if missing := [path for path in paths if not path.is_file()]:
        raise InputError(
            f"compare: {printable(missing[0])}: there is no such file" + (f", nor {len(missing) - 1} others" * (len(missing) > 1))
        )
    return pd.DataFrame([_file_row(path) for path in paths], columns=None if paths else ["clip"])


def _file_row(path: Path) -> dict[str, Any]:
    """The file of a clip as a row, with the params that it carries if this version can read them."""
    row: dict[str, Any] = {"file": path.name, "clip": str(path.absolute()), "status": "done", "reason": ""}
    with suppress(ClipError, ParamsError, TypeError):
        inside = video.read_settings(path)
        row |= ClipParams(**inside["params"]).plain() if isinstance(inside.get("params"), dict) else {}
    return row


def _repeated(table: pd.DataFrame, axes: Sequence[str]) -> bool:
    """Whether two rows have the same values on all axes."""
    keys = list(zip(*(plain_values(table, axis) for axis in axes), strict=True)) if axes else [()] * len(table)
    return len(set(keys)) < len(keys)


def _names(table: pd.DataFrame) -> list[str]:
    """A name for each row: that of its file or its run, with a number where several rows have it."""
    columns = [plain_values(table, name) for name in ("clip", "id") if name in table.columns]
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
