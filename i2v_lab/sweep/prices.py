"""What each cell of a sweep lost against its reference: the same picture and seed without a lever, or with the most steps."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab.clip.levers import LEVERS, NEUTRAL
from i2v_lab.clip.publish import partial_file
from i2v_lab.errors import ClipError, InputError
from i2v_lab.metrics.price import FIELDS, Likeness, compare, price_of
from i2v_lab.portable import replace
from i2v_lab.sweep.definition import canonical

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
PRICES = "prices.json"  # beside the table of a sweep: what was compared before


def priced_axes(axes: Sequence[str], reference: Mapping[str, Any]) -> list[str]:
    """The axes along which cells are compared with a reference: those that it names; or the levers, and with them the steps."""
    if reference:
        return [axis for axis in axes if axis in reference]
    levers = [axis for axis in axes if axis in LEVERS]
    return [axis for axis in axes if axis in (*levers, "num_inference_steps")] if levers else []


def references(table: pd.DataFrame, axes: Sequence[str], reference: Mapping[str, Any]) -> list[int | None]:
    """For each row the place of its reference: equal on all other axes; None where there is none that is done.

    Args:
        axes: of the sweep. reference: {axis: value}; {}: no lever, and the most steps.

    Raises:
        InputError: no row has the values of the reference.
    """
    along = priced_axes(axes, reference)
    others = [axis for axis in axes if axis not in along]
    rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    wanted = [n for n, row in enumerate(rows) if _is_reference(row, along, reference)]
    if reference and not wanted:
        said = ", ".join(f"{name} {value}" for name, value in reference.items())
        raise InputError(f"reference: no cell has {said}; add these values to the axes, so that the clips to compare with are made")
    groups: dict[tuple[str, ...], int] = {}
    possible = [n for n in wanted if _has_clip(rows[n]) and not _same(rows[n]["num_inference_steps"], None)]
    for n in sorted(possible, key=lambda n: int(rows[n]["num_inference_steps"])):
        groups[tuple(str(rows[n][axis]) for axis in others)] = n  # the most steps come last
    return [groups.get(tuple(str(row[axis]) for axis in others)) if along else None for row in rows]


def _has_clip(row: Mapping[str, Any]) -> bool:
    return row["status"] == "done" and isinstance(row["clip"], str) and Path(row["clip"]).is_file()


def _is_reference(row: Mapping[str, Any], along: Sequence[str], reference: Mapping[str, Any]) -> bool:
    if reference:
        return all(_same(row[axis], canonical(axis, reference[axis])) for axis in along)
    return all(_same(row[axis], None) or str(row[axis]) == NEUTRAL[axis] for axis in along if axis in LEVERS)


def _same(found: Any, wanted: Any) -> bool:
    """Whether a value of the table, where a number may be of another type and nothing is NaN, is a value of ClipParams."""
    if str(found) in ("", "None", "nan", "<NA>"):
        return wanted is None
    if isinstance(found, (int, float)) and isinstance(wanted, (int, float)):
        return float(found) == float(wanted)
    return str(found) == str(wanted)


def with_prices(table: pd.DataFrame, axes: Sequence[str], reference: Mapping[str, Any], folder: Path) -> pd.DataFrame:
    """The table with `reference` (the index of the row that each is compared with) and a column price_... for each figure of FIELDS.

    Clips are compared once: the figures are kept in `folder`. A pair that cannot be compared has none.
    """
    import pandas as pd

    against = references(table, axes, reference)
    known, found = _read(folder / PRICES), []
    before = len(known)
    rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]
    for place, other in enumerate(against):
        figures: dict[str, float | None] = {}
        if other not in (None, place) and _has_clip(rows[place]):
            figures = _compared(rows[place], rows[other], known)
        found.append([figures.get(name) for name in FIELDS])
    if len(known) > before:
        with partial_file(folder, Path(PRICES).stem, "json") as partial:
            partial.write_text(json.dumps(known), encoding="utf-8")
            replace(partial, folder / PRICES)
    columns = [f"price_{name}" for name in FIELDS]
    figured = pd.DataFrame(found, columns=columns, index=table.index, dtype="float64")
    named = [None if other is None else table.index[other] for other in against]
    return table.assign(reference=pd.Series(named, index=table.index, dtype="object")).join(figured)


def _compared(row: Mapping[str, Any], other: Mapping[str, Any], known: dict[str, Any]) -> dict[str, float | None]:
    key = " ".join(f"{one['frames_sha256']}{Path(one['clip']).suffix}" for one in (row, other))
    if key not in known:
        try:
            known[key] = asdict(compare(Path(row["clip"]), Path(other["clip"])))
        except ClipError as error:
            log.warning("no price: %s", error)
            return {}
    metrics = [{name: _number(one.get(f"metric_{name}")) for name in ("motion", "temporal_flickering")} for one in (row, other)]
    try:
        return asdict(price_of(Likeness(**known[key]), *metrics))
    except TypeError:  # of another version
        del known[key]
        return _compared(row, other, known)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _read(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return found
    return {}
