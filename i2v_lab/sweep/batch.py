"""A batch: a table of clips, made one after another or on a cluster. A row that is wrong or fails is recorded, and the next rows are made."""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from i2v_lab.clip.params import ClipParams, from_mapping
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import I2VLabError, InputError, ParamsError, Stop
from i2v_lab.run.task import Task
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep.definition import Cell
from i2v_lab.sweep.look import Looks
from i2v_lab.sweep.loop import makers, run_cells
from i2v_lab.sweep.status import CellProgress, SweepStatus
from i2v_lab.sweep.stop import SweepStop
from i2v_lab.textfile import plain_text, read_text

log = logging.getLogger(__name__)


def read_rows(path: Path) -> list[Mapping[str, Any] | str]:
    """The rows of a CSV file (with a header) or a JSONL file; columns are fields of ClipParams.

    A CSV may have commas, semicolons or tabs between its cells, as the Excel of each country writes it; where it is not
    the comma, numbers may have a decimal comma. Rows and unnamed columns that are empty are passed over.

    Returns:
        For each row its fields; or, where it cannot be read, the reason.

    Raises:
        InputError: the file cannot be read, is empty, or (CSV) has a column that is no parameter.
    """
    text = read_text(path, InputError, "a CSV or JSONL file")
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        # Not splitlines(): a prompt may hold other line breaks.
        rows: list[Mapping[str, Any] | str] = [
            _json_row(line, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()
        ]
    else:
        rows = list(_csv_rows(text, path))
    if not rows:
        raise InputError(f"expected at least one row, got none in {path}")
    return rows


def _csv_rows(text: str, path: Path) -> Iterator[dict[str, str]]:
    text = re.sub(r"\A(?i:sep)=.\r?\n", "", text)  # a line by which Excel is told the separator
    separator = _separator(text.split("\n", 1)[0])
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        names = [name.strip() for name in next(table, [])]
        _check_header(path, [name for name in names if name])
        for cells in table:
            if not any(cells):
                continue
            row = dict(zip(names, map(plain_text, cells), strict=False))
            row = {name: _number(name, cell) if separator != "," else cell for name, cell in row.items() if name or cell}
            yield row | ({"more columns than the header": "x"} if any(cells[len(names) :]) else {})
    except csv.Error as error:
        raise InputError(f"expected a CSV file, got {path}: line {table.line_num}: {error}") from None


def _separator(header: str) -> str:
    """Comma, semicolon or tab: the one by which most of the header's cells are parameters."""

    def known(separator: str) -> int:
        return sum(name.strip(' "\r') in ClipParams.model_fields for name in header.split(separator))

    return max(",;\t", key=known)


def _number(name: str, cell: str) -> str:
    """A cell of a table that has no commas between its cells: a parameter that is a number may have a decimal comma."""
    field = ClipParams.model_fields.get(name)
    number = field is not None and "str" not in str(field.annotation) and re.fullmatch(r"\s*[+-]?\d*,\d+\s*", cell)
    return cell.replace(",", ".") if number else cell


def _check_header(path: Path, names: Sequence[str]) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"expected each column once, got {', '.join(map(repr, twice))} twice in {path}; drop one")
    unknown = [name for name in names if name not in ClipParams.model_fields]
    if unknown:
        known = ", ".join(ClipParams.model_fields)
        raise InputError(f"expected columns of {known}, got {', '.join(map(repr, unknown))} in {path}; rename or drop them")


def _json_row(line: str, number: int) -> Mapping[str, Any] | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"line {number} is not JSON: {error}"
    return row if isinstance(row, dict) else f'line {number}: expected an object such as {{"image": ...}}, got {type(row).__name__}'


def run_batch(
    rows: Sequence[Mapping[str, Any] | str],
    store: Store,
    settings: Settings,
    *,
    progress: Progress | None = None,
    stop: SweepStop | None = None,
    force: bool = False,
    tier: int | None = None,
) -> Iterator[tuple[RunRecord, bool]]:
    """Make the clip of each row, one after another. A row that is no clip is a failed record without params.

    Args:
        rows: as `read_rows` returns them.
        progress: hears every stage and step; a SweepProgress hears of the rows too, as the cells of a sweep.
        stop: ends the batch once it is asked.
        force, tier: as for run_clip.

    Yields:
        The record of each row, when it is made, and whether its clip was made before.
    """
    watch = CellProgress(progress or Progress(), stop or SweepStop())
    watch.begin(SweepStatus("", len(rows), len(rows)), dict.fromkeys(range(1, len(rows) + 1), 1.0), None)
    reason = "over"
    try:
        with makers(store, settings, watch) as (maker, places):
            looks = Looks(store, settings, places)
            tasks = [replace(_task(number, row, looks), force=force, tier=tier) for number, row in enumerate(rows, 1)]
            for task, record in run_cells(maker, tasks, watch):
                if record.status == "failed":
                    log.info("run %s: failed: %s", record.id, record.reason)
                    store.save(record)  # a row that was refused has a run too
                yield record, record.id != task.id
    except Stop as error:
        reason = str(error)
    finally:
        watch.over(reason)


def _task(number: int, row: Mapping[str, Any] | str, looks: Looks) -> Task:
    try:
        if isinstance(row, str):
            raise ParamsError(row)
        params = from_mapping({**row, "model": row.get("model") or looks.settings.model})
    except ParamsError as error:
        return Task(number, None, reason=str(error))
    if not looks.kinds:
        return Task(number, params)
    key = ""
    with suppress(I2VLabError):  # the run says why
        params = looks.at(None).resolved(Cell(number, params, {})).params
        key = looks.best(params).key(params)
    return Task(number, params, key=key, fits=looks.fitting(params))
