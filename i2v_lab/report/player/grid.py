"""The grid of a sweep: the place of each clip, rows, columns and their labels. The page and the video of a sweep use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from i2v_lab.clip.params import parse_resolution, resolution_size
from i2v_lab.errors import InputError, ParamsError
from i2v_lab.report.player.assets import said

if TYPE_CHECKING:
    import pandas as pd

Label = tuple[tuple[str, str], ...]
"""The name of a row, a column or a clip: (axis, value as text) for each of its axes."""

LONG = 24  # characters: longer values make no good column head


@dataclass(frozen=True)
class GridCell:
    """One place of the grid.

    Attributes:
        row, column: its place, from 0.
        label: its axes, without those that are the same in every cell.
        run: the row of the table that is shown there.
    """

    row: int
    column: int
    label: Label
    run: Mapping[str, Any]

    @property
    def status(self) -> str:
        return text_of(self.run.get("status")) or "done"

    @property
    def reason(self) -> str:
        return text_of(self.run.get("reason"))

    @property
    def clip(self) -> str:
        """The clip's path; "" where the run left none."""
        return text_of(self.run.get("clip"))


@dataclass(frozen=True)
class Grid:
    """A sweep, arranged.

    Attributes:
        rows, columns: labels, in order. `rows` is one empty label where the columns are a list that may wrap.
        cells: in reading order; a place without a run has no cell.
        common: the axes that have one value in all cells.
        notes: remarks for the reader, as `assets.said` makes them.
    """

    rows: tuple[Label, ...]
    columns: tuple[Label, ...]
    cells: tuple[GridCell, ...]
    common: Label
    notes: tuple[Any, ...]

    @property
    def wraps(self) -> bool:
        """Whether it is a list: each clip has its own label, and lines may break anywhere."""
        return self.rows == ((),)


def arrange(
    table: pd.DataFrame,
    axes: Sequence[str],
    *,
    rows: str | Sequence[str] | None = None,
    columns: str | Sequence[str] | None = None,
) -> Grid:
    """Give each cell of a sweep its place.

    Axes with one value are named once for all. Axes that change together count as one. Of several axes the last one with
    short values makes the columns, and the others make the rows, the first of them slowest. Numbers are sorted, resolutions
    by their pixels; other values keep the order of the table. Of several runs of a cell the newest that is done is shown.

    Args:
        table: one row a run.
        axes: the swept columns of the table, outermost first.
        rows, columns: axes to put there instead; axes that are in neither go to the rows.

    Raises:
        InputError: an axis is no column of the table, is not swept, or is named twice.
    """
    axes = list(dict.fromkeys(axes))
    check_axes(table, axes)
    runs = [{str(name): value for name, value in run.items()} for run in table.to_dict("records")]
    ranks = {axis: _ranks(axis, [_plain(run[axis]) for run in runs]) for axis in axes}
    keys = [{axis: _plain(run[axis]) for axis in axes} for run in runs]
    row_axes, column_axes, common_axes = _sides(axes, keys, ranks, rows, columns)
    texts = {axis: texts_by_value(axis, list(ranks[axis])) for axis in axes}

    def label(names: Sequence[str], key: Mapping[str, Any]) -> Label:
        return tuple((name, texts[name][key[name]]) for name in names)

    def ordered(names: Sequence[str]) -> list[tuple[Any, ...]]:
        points = dict.fromkeys(tuple(key[name] for name in names) for key in keys)
        return sorted(points, key=lambda point: [ranks[name][value] for name, value in zip(names, point, strict=True)])

    places = [{point: index for index, point in enumerate(ordered(names))} for names in (row_axes, column_axes)]
    chosen: dict[tuple[int, int], int] = {}
    for index, key in enumerate(keys):
        place = (places[0][tuple(key[name] for name in row_axes)], places[1][tuple(key[name] for name in column_axes)])
        if place not in chosen or _precedence(runs[index], index) > _precedence(runs[chosen[place]], chosen[place]):
            chosen[place] = index
    varied = [axis for axis in axes if axis not in common_axes]
    cells = tuple(GridCell(*place, label(varied, keys[index]), runs[index]) for place, index in sorted(chosen.items()))
    return Grid(
        rows=tuple(label(row_axes, dict(zip(row_axes, point, strict=True))) for point in places[0]) or ((),),
        columns=tuple(label(column_axes, dict(zip(column_axes, point, strict=True))) for point in places[1]),
        cells=cells,
        common=label(common_axes, keys[0] if keys else {}),
        notes=() if len(runs) == len(cells) else (said("newest_of_cells", runs=len(runs), cells=len(cells)),),
    )


def check_axes(table: pd.DataFrame, axes: Sequence[str], what: str = "axes") -> None:
    """Raises InputError where one of them is no column of the table."""
    if unknown := [axis for axis in axes if axis not in table.columns]:
        raise InputError(f"{what}: expected columns of the table, got {', '.join(map(repr, unknown))}")


def labels(table: pd.DataFrame, axes: Sequence[str]) -> list[Label]:
    """The values of each row of the table, as texts."""
    columns = {axis: plain_values(table, axis) for axis in axes}
    texts = {axis: texts_by_value(axis, value_order(axis, values)) for axis, values in columns.items()}
    return [tuple((axis, texts[axis][columns[axis][place]]) for axis in axes) for place in range(len(table))]


def text_of(value: Any) -> str:
    """A value of the table as text; "" where it is missing."""
    plain = _plain(value)
    return "" if plain is None else str(plain)


def in_words(label: Label) -> str:
    """A label in one line, for a table or an alternative text."""
    return ", ".join(f"{name} {value}" for name, value in label)


def value_order(axis: str, values: Sequence[Any]) -> list[Any]:
    """The distinct values of an axis, in the order in which they are shown; missing ones last."""
    distinct = list(dict.fromkeys(values))
    present = [value for value in distinct if value is not None]
    if all(isinstance(value, (int, float)) for value in present):
        present.sort()
    elif axis == "resolution":
        present.sort(key=_pixels)
    return present + [value for value in distinct if value is None]


def value_texts(axis: str, values: Sequence[Any]) -> list[str]:
    """Distinct values of an axis as people read them; pictures by their file names where these differ."""
    texts = ["none" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    if axis in ("image", "model"):
        names = [PurePath(text).name or text for text in texts]
        return names if len(set(names)) == len(names) else texts
    if len(set(texts)) < len(texts):  # numbers that differ in late digits
        texts = [str(value) for value in values]
    return ["(empty)" if text == "" else text for text in texts]


def plain_values(table: pd.DataFrame, axis: str) -> list[Any]:
    """A column as Python's own values: int, float, str, and None where one is missing."""
    return [_plain(value) for value in table[axis].tolist()]


def _plain(value: Any) -> Any:
    import pandas as pd

    if not pd.api.types.is_scalar(value):
        return str(value)
    if pd.isna(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, (int, float, str)) else str(value)


def _pixels(resolution: Any) -> tuple[int, int]:
    try:
        height, width = resolution_size(parse_resolution(resolution))
    except (ValueError, ParamsError):
        return (0, 0)
    return (height * width, width)


def _ranks(axis: str, values: Sequence[Any]) -> dict[Any, int]:
    return {value: rank for rank, value in enumerate(value_order(axis, values))}


def texts_by_value(axis: str, values: Sequence[Any]) -> dict[Any, str]:
    """Distinct values of an axis, each with its text; see `value_texts`."""
    return dict(zip(values, value_texts(axis, values), strict=True))


def _names(given: str | Sequence[str] | None, axes: Sequence[str], side: str) -> list[str]:
    names = [given] if isinstance(given, str) else list(given or ())
    if wrong := [name for name in names if name not in axes]:
        raise InputError(f"{side}: expected some of the axes {', '.join(axes)}; got {', '.join(map(repr, wrong))}")
    return names


def _sides(
    axes: Sequence[str],
    keys: Sequence[Mapping[str, Any]],
    ranks: Mapping[str, Mapping[Any, int]],
    rows: str | Sequence[str] | None,
    columns: str | Sequence[str] | None,
) -> tuple[list[str], list[str], list[str]]:
    """The axes of the rows, of the columns, and those with one value."""
    if rows is not None or columns is not None:
        down, across = _names(rows, axes, "rows"), _names(columns, axes, "columns")
        if both := set(down) & set(across):
            raise InputError(f"rows and columns: {', '.join(sorted(both))} is in both; keep one")
        rest = [axis for axis in axes if axis not in (*down, *across)]
        return (down, rest, []) if columns is None else ([*rest, *down], across, [])
    varied = [axis for axis in axes if len(ranks[axis]) > 1]
    if not varied:
        return [], list(axes), []
    groups: list[list[str]] = []
    for axis in varied:
        for group in groups:
            pairs = {(key[group[0]], key[axis]) for key in keys}
            if len(pairs) == len(ranks[axis]) == len(ranks[group[0]]):  # one value of the other for each: they change together
                group.append(axis)
                break
        else:
            groups.append([axis])
    short = [group for group in groups if all(len(str(value)) <= LONG for axis in group for value in ranks[axis])]
    across = (short or groups)[-1]
    down = [axis for group in groups if group is not across for axis in group]
    return down, across, [axis for axis in axes if axis not in varied]


def _precedence(run: Mapping[str, Any], index: int) -> tuple[bool, bool, str, int]:
    """Of several runs of one cell, the highest is shown."""
    return (text_of(run.get("status")) in ("done", ""), bool(text_of(run.get("clip"))), text_of(run.get("created")), index)
