"""Every run, finished or failed, in one SQLite file beside the clips; the table of runs is a DataFrame."""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
import shutil
import socket
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from i2v_lab.clip.publish import disk_full, is_full, partial_file, publish, writing
from i2v_lab.clip.record import COLUMNS, RunRecord, Status, from_row, json_text, stamp, table, to_row
from i2v_lab.errors import PROCESS_ENDED, StoreError
from i2v_lab.portable import replace
from i2v_lab.rights import make_file, make_folder
from i2v_lab.store import sweeps, trash
from i2v_lab.store.database import Database, is_closed
from i2v_lab.store.processes import is_there
from i2v_lab.store.rebuild import SUFFIXES, carried
from i2v_lab.store.sweeps import Member, SweepId

if TYPE_CHECKING:
    import pandas as pd

CHUNK_ROWS = 1024  # rows taken from SQLite at a time; more fall out of the cache

_NAMES = ", ".join(f'"{column.name}"' for column in COLUMNS)
# An update in place: REPLACE would delete and insert, in every index.
_SAVE = (
    f"INSERT INTO runs ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (id) DO UPDATE SET "  # noqa: S608
    + ", ".join(f'"{column.name}" = excluded."{column.name}"' for column in COLUMNS if column.name != "id")
)


class Store:
    """The output folder: clips/, pictures/ and the record of runs in runs.db. Many processes and threads may use one.

    Attributes:
        directory: the output folder, absolute.
        clips: where clips go.
        pictures: copies of the input pictures, so that a clip can be made again after the original moved.
        file: the database.

    Every method raises StoreError, one line, where the record cannot be read or written: the database is damaged,
    made by a newer version, locked for longer than `timeout`, or the disk is full.
    """

    def __init__(self, directory: Path, *, timeout: float = 30.0) -> None:
        """Open the output folder; nothing is made before something is written. Runs whose process has died end: they are done
        where their clip is there, otherwise failed. Where the database is gone and clips are there, it is made again from them.

        Args:
            directory: the output folder.
            timeout: seconds to wait for others who write.
        """
        self.database = Database(directory, timeout=timeout)
        self.directory = self.database.directory
        self.clips = self.directory / "clips"
        self.pictures = self.directory / "pictures"
        self.file = self.database.file
        self._rebuilding = threading.Lock()
        self.database.made = lambda: threading.Thread(target=self.rebuild, name="rebuild", daemon=True).start()
        if not self.file.exists():
            self.rebuild()
        self.mark_dead()

    # Writing

    def save(self, record: RunRecord) -> None:
        """Insert the record, or replace the one of the same id."""
        self.save_many([record])

    def save_many(self, records: Iterable[RunRecord]) -> None:
        """Save all of the records, or none, in one transaction."""
        rows = [to_row(record) for record in records]
        self.database.write(lambda connection: connection.executemany(_SAVE, rows))

    def rebuild(self, since: float = 0.0) -> int:
        """Record the clips in clips/ that no run has, from what they carry. Returns how many runs were recorded.

        A clip that was published when its process died makes its run a done one; one that was renamed by hand is found again.

        Args:
            since: only clips written after this time, seconds since 1970.
        """
        if not self.clips.is_dir() or not self._rebuilding.acquire(blocking=False):
            return 0  # there is nothing, or a thread is at it: the first run that it records makes the file
        try:
            names = self.database.read(lambda connection: {row[0] for row in connection.execute("SELECT clip FROM runs")})
            new = [
                clip for clip in sorted(self.clips.glob("[!.]*")) if clip.suffix in SUFFIXES and f"clips/{clip.name}" not in names
            ]
            found = [
                self._merged(record) for record in carried((clip for clip in new if _written(clip) >= since), self.find_picture)
            ]
            if records := [record for record in found if record]:
                self.save_many(records)
            return len(records)
        except StoreError as error:
            if not is_closed(error):
                raise
            return 0
        finally:
            self._rebuilding.release()

    def _merged(self, record: RunRecord) -> RunRecord | None:
        """The record that a clip carries, with what is known of its run; None where the run has a clip: this is a copy."""
        before = self.get(record.id)
        if before is None:
            return record
        if before.status == "done" and not self.is_gone(before):
            return None
        kept = {name: getattr(before, name) for name in ("params", "host", "pid", "sweep", "created", "metrics")}
        return record.model_copy(update=kept)

    def is_gone(self, record: RunRecord) -> bool:
        """Whether the run's clip was deleted."""
        return bool(record.clip) and not (self.directory / record.clip).is_file()

    def mark_dead(self) -> int:
        """End the runs of processes of this host that are gone: done where the clip was published, otherwise failed.

        Returns how many failed.
        """
        host = socket.gethostname()
        find = "SELECT id, pid, CAST(strftime('%s', created) AS REAL) FROM runs WHERE status = 'running' AND host = ?"
        mark = "UPDATE runs SET status = 'failed', reason = ?, finished = ? WHERE id = ? AND status = 'running'"
        running = self.database.read(lambda connection: connection.execute(find, (host,)).fetchall())
        dead = [(id, created) for id, pid, created in running if not is_there(pid, created)]
        if not dead:
            return 0
        self.rebuild(min(created or 0.0 for _, created in dead))
        rows = [(PROCESS_ENDED, stamp(datetime.now(UTC)), id) for id, _ in dead]
        try:
            return self.database.write(lambda connection: connection.executemany(mark, rows).rowcount)
        except StoreError as error:
            if not is_closed(error):
                raise
            return 0  # a folder that is only read

    def adopt(self, record: RunRecord, clip: Path | None = None) -> RunRecord:
        """Keep what `make` made: the clip goes to clips/ where it is not there yet, and the record is saved.

        Args:
            record: of the run. clip: its file, anywhere; None where there is none.

        Returns:
            The record, with the clip's place in it.

        Raises:
            StoreError: the record cannot be written; where there is a clip, the text says where that is.
            WriteError: the clip cannot be copied.
        """
        if clip is not None:
            clip = self._publish(clip)
            record = record.model_copy(update={"clip": clip.relative_to(self.directory).as_posix()})
        try:
            self.save(record)
        except StoreError as error:
            if clip is not None:  # it was worth the wait, and carries its settings
                raise StoreError(f"{error}; the clip was made: {clip}") from error
            raise
        return record

    def _publish(self, clip: Path) -> Path:
        """A clip's place in clips/, under its own name or, where that is taken, with a number."""
        if clip.parent == self.clips:
            return clip
        with partial_file(self.clips, clip.stem, clip.suffix[1:]) as part, writing(self.clips):
            shutil.copyfile(clip, part)
            place = publish(part, self.clips, clip.stem, clip.suffix[1:])
        clip.unlink(missing_ok=True)
        return place

    def set_metrics(self, id: str, values: Mapping[str, float | None]) -> None:
        """Note the metrics of a run; nothing else in its row is touched."""
        text = json_text(values)
        self.database.write(lambda connection: connection.execute("UPDATE runs SET metrics = ? WHERE id = ?", (text, id)))

    def keep_picture(self, path: Path, sha256: str) -> Path:
        """Copy a picture into pictures/, once.

        Args:
            path: the input picture.
            sha256: hex digest of the file's bytes, as it was read.

        Returns:
            The copy's path, pictures/<sha256><suffix>.

        Raises:
            StoreError: it cannot be read or copied, or its bytes are no longer those.
        """
        if kept := self.find_picture(sha256):
            return kept
        suffix = path.suffix.lower() if re.fullmatch(r"\.[a-z0-9]{1,8}", path.suffix.lower()) else ""
        kept = self.pictures / f"{sha256}{suffix}"
        part = self.pictures / f".{sha256[:16]}-{secrets.token_hex(4)}.part"
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != sha256:
                raise StoreError(f"{path} changed while it was used: run it again")
            make_folder(self.pictures)
            make_file(part)
            part.write_bytes(data)
            replace(part, kept)
        except OSError as error:
            if is_full(error):
                raise StoreError(disk_full(self.pictures)) from None
            raise StoreError(f"{path} cannot be copied to {self.pictures} ({error.strerror or error})") from None
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return kept

    # Deleting

    def delete(self, *ids: str) -> None:
        """Delete runs: their clips move to clips/.trash, and nothing shows or counts them any more. `undelete` undoes it.

        Raises:
            StoreError: there is no such run, it is still running, or its clip cannot be moved; those before it are deleted.
        """
        deleted = stamp(datetime.now(UTC))
        for id in ids:
            trash.delete(self.database, id, deleted)

    def undelete(self, *ids: str) -> list[str]:
        """Undo the deletion of runs; without ids, of those that were deleted last, together. Returns their ids.

        Args:
            ids: or names of their clips.

        Raises:
            StoreError: there is no such deleted run, or its clip cannot be moved.
        """
        chosen = [self.database.read(partial(trash.named, name=id)) for id in ids] or self.database.read(trash.last)
        for id in chosen:
            trash.undelete(self.database, id)
        return chosen

    def empty_trash(self) -> int:
        """Remove the deleted runs and their clips for good; one whose clip cannot be removed stays. Returns how many are gone."""
        return trash.remove(self.database)

    # Sweeps

    def begin_sweep(self, id: str, name: str, definition: str, members: Iterable[Member]) -> None:
        """Enter a sweep and its cells, all of them planned but for those that an earlier sweep of this name had run."""
        created, listed = stamp(datetime.now(UTC)), list(members)  # a list: after a full disk it is tried again
        self.database.write(lambda connection: sweeps.add(connection, id, name, definition, created, listed))

    def find_sweeps(self, name: str) -> list[SweepId]:
        """The sweeps of a name (or of an id), newest first."""
        return self.database.read(lambda connection: sweeps.of_name(connection, name))

    def cell_states(self, sweep: str) -> dict[str, tuple[str, str, str]]:
        """{params as JSON: (run id, status, reason)} of those cells of a sweep, by its id, that were run."""
        return self.database.read(lambda connection: sweeps.states(connection, sweep))

    def cell_counts(self, sweep: str) -> dict[str, int]:
        """{status: how many cells} of a sweep, by its id."""
        return self.database.read(lambda connection: sweeps.counts(connection, sweep))

    def set_cell_runs(self, sweep: str, runs: Mapping[int, str | None], keys: Mapping[int, str] | None = None) -> None:
        """Note which run is that of a cell, by its number, and its key where only the run could know it."""
        if runs:
            self.database.write(lambda connection: sweeps.set_runs(connection, sweep, runs, keys or {}))

    def timings(self, model_name: str, device_name: str, limit: int = 2000, **like: Any) -> list[Sequence[Any]]:
        """What the newest done runs of a model on a device took; see `sweeps.timings`."""
        return self.database.read(lambda connection: sweeps.timings(connection, model_name, device_name, limit, like))

    # Reading

    def get(self, id: str) -> RunRecord | None:
        """The run of this id."""
        return next(iter(self._select("WHERE id = ?", (id,))), None)

    def find_clip(self, clip: Path) -> RunRecord | None:
        """The run whose clip this file in the output folder is."""
        with suppress(ValueError, OSError):
            place = (clip.parent.resolve() / clip.name).relative_to(self.directory.resolve()).as_posix()
            return next(iter(self._select("WHERE clip = ?", (place,))), None)
        return None

    def find_done(self, key: str, ending: str = "", fps: Fraction | None = None) -> RunRecord | None:
        """The newest done run of the key whose clip is still there, and has this ending (".mp4") and this rate."""
        found = self.find_all_done([key], ending)
        return next((run for run in found.get(key, []) if fps is None or (run.params and run.params.fps == fps)), None)

    def find_all_done(self, keys: Iterable[str], ending: str = "") -> dict[str, list[RunRecord]]:
        """For many keys at once, {key: its done runs, the newest first, one for each rate}; clips that are gone left out."""
        wanted = json.dumps([key for key in dict.fromkeys(keys) if key])
        where = "WHERE key IN (SELECT value FROM json_each(?)) AND status = 'done' AND clip <> '' ORDER BY created DESC, id DESC"
        found: dict[str, list[RunRecord]] = {}
        rates: set[tuple[str, Fraction | None]] = set()
        for record in self._select(where, (wanted,)):
            rate = (record.key, record.params.fps if record.params else None)
            if rate not in rates and record.clip.endswith(ending) and (self.directory / record.clip).is_file():
                rates.add(rate)
                found.setdefault(record.key, []).append(record)
        return found

    def find_picture(self, sha256: str) -> Path | None:
        """The kept picture with these bytes."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise StoreError(f"expected a sha256 of 64 hex digits, got {sha256[:80]!r}")
        return next(iter(sorted(self.pictures.glob(f"{sha256}*"))), None)

    def records(
        self, *, sweep: str | None = None, status: Status | None = None, lacking: str | None = None, limit: int | None = None
    ) -> list[RunRecord]:
        """Runs in the order they were created; with `limit`, the newest so many.

        Args:
            sweep, status: only runs of these.
            lacking: only runs without this metric.
        """
        where, values = _where(sweep, status, lacking and f'"{lacking}"')
        found = self._select(f"{where} ORDER BY created DESC, id DESC LIMIT ?", (*values, -1 if limit is None else limit))
        return found[::-1]

    def runs(self, *, sweep: str | None = None, status: Status | None = None) -> pd.DataFrame:
        """The table of runs, in the order they were created; one row a run.

        Columns are the fields of the record, with those of its params and its stages in their place; see `record.table`.

        Args:
            sweep: the name or the id of a sweep: one row a cell of the newest one so called, in the order of its cells,
                with `cell`, its number, as the first column. What was not run yet has the status planned; a clip that
                another sweep made is shown as it is.
            status: only runs of this one.
        """
        if sweep is not None and (known := self.find_sweeps(sweep)):
            return self._cell_table(known[0].id, status)
        where, values = _where(sweep, status)
        query = f"SELECT {_NAMES} FROM runs {where} ORDER BY created, id"  # noqa: S608
        return self.database.read(lambda connection: table(_chunks(connection.execute(query, values)), self.directory))

    def _cell_table(self, id: str, status: Status | None) -> pd.DataFrame:
        numbers: list[int] = []

        def chunks(connection: sqlite3.Connection) -> Iterator[list[tuple[Any, ...]]]:
            for rows in _chunks(connection.execute(sweeps.QUERY, (id, status))):
                numbers.extend(row[-1] for row in rows)
                yield [row[:-1] for row in rows]

        found = self.database.read(lambda connection: table(chunks(connection), self.directory))
        found.insert(0, "cell", numbers)
        return found

    def _select(self, where: str, values: Sequence[Any]) -> list[RunRecord]:
        query = f"SELECT {_NAMES} FROM runs {where}"  # noqa: S608
        return [from_row(row) for row in self.database.read(lambda connection: connection.execute(query, values).fetchall())]


def _where(sweep: str | None, status: str | None, lacking: str | None = None) -> tuple[str, tuple[str, ...]]:
    given = {"sweep = ?": sweep, "status = ?": status, "instr(coalesce(metrics, ''), ?) = 0": lacking}
    parts = {part: value for part, value in given.items() if value is not None}
    return f"WHERE {' AND '.join(parts)}" if parts else "", tuple(parts.values())


def _chunks(cursor: sqlite3.Cursor) -> Iterator[list[tuple[Any, ...]]]:
    while rows := cursor.fetchmany(CHUNK_ROWS):
        yield rows


def _written(path: Path) -> float:
    """When a file was written, seconds since 1970; before all times where it is gone."""
    with suppress(OSError):
        return path.lstat().st_mtime
    return -math.inf
