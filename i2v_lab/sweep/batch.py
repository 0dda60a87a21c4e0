"""A batch: a table of clips, made one after another. A row that is wrong or fails is recorded, and the next rows are made."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from i2v_lab.clip.params import ClipParams, from_mapping
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.errors import InputError, ParamsError, Stop
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep.loop import run_cells
from i2v_lab.sweep.status import CellProgress, SweepStatus
from i2v_lab.sweep.stop import SweepStop
from i2v_lab.textfile import read_text

log = logging.getLogger(__name__)


def read_rows(path: Path) -> list[Mapping[str, Any] | str]:
    """The rows of a CSV file (with a header) or a JSONL file; columns are fields of ClipParams.

    Returns:
        For each row its fields; or, where it cannot be read, the reason.

    Raises:
        InputError: the file cannot be read, is empty, or (CSV) has a column that is no parameter.
    """
    text = read_text(path, InputError, "a CSV or JSONL file")
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        rows: list[Mapping[str, Any] | str] = [
            _json_row(line, number) for number, line in enumerate(text.split("\n"), 1) if line.strip()
        ]
    else:
        # Not splitlines(): a prompt in quotes may hold line breaks.
        table = csv.DictReader(io.StringIO(text, newline=""), restkey="more columns than the header")
        try:
            _check_header(path, table.fieldnames or [])
            rows = list(table)
        except csv.Error as error:
            raise InputError(f"expected a CSV file, got {path}: line {table.line_num}: {error}") from None
    if not rows:
        raise InputError(f"expected at least one row, got none in {path}")
    return rows


def _check_header(path: Path, names: Any) -> None:
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
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
    watch.begin(SweepStatus("", len(rows), len(rows)), [1.0] * len(rows), None)
    id = ""

    def clip(number: int) -> RunRecord:
        nonlocal id
        row, id = rows[number - 1], new_id()
        try:
            if isinstance(row, str):
                raise ParamsError(row)
            params = from_mapping({**row, "model": row.get("model") or settings.model})
        except ParamsError as error:
            now = datetime.now(UTC)
            record = RunRecord(id=id, status="failed", reason=str(error), created=now, finished=now)
            store.save(record)
            log.info("run %s: failed: %s", record.id, record.reason)
            return record
        record = run_clip(params, None, store, progress=watch, settings=settings, force=force, tier=tier, id=id)
        if record.status == "failed":
            store.save(record)  # a row that was refused has a run too
        return record

    reason = "over"
    try:
        for _, record in run_cells(dict.fromkeys(range(1, len(rows) + 1), ""), clip, watch):
            yield record, record.id != id
    except Stop as error:
        reason = str(error)
    finally:
        watch.over(reason)
