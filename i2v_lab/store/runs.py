"""Every run, finished or failed, in one SQLite file beside the clips; the table of runs is a DataFrame."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from i2v_lab.clip.record import COLUMNS, SQL_TYPES, RunRecord, Status, from_row, new_id, stamp, table, to_row
from i2v_lab.errors import StoreError
from i2v_lab.store import sweeps as membership
from i2v_lab.store.sweeps import Member, SweepId

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["RunRecord", "Status", "Store", "new_id"]

T = TypeVar("T")

SCHEMA_VERSION = 1  # raise it where an older package could no longer read what this one writes
DATABASE = "runs.db"
SPARE = "runs.db-spare"
SPARE_BYTES = 256 * 1024  # some 30 pages of 4 KiB for the log of a write, its index of 32 KiB, and the table's own growth
CHUNK_ROWS = 1024  # rows taken from SQLite at a time; more fall out of the cache
CLOCK_SLACK_SECONDS = 5.0  # between a process's start, by the clock at boot, and a record's time

_NAMES = ", ".join(f'"{column.name}"' for column in COLUMNS)
_TABLE = ", ".join(
    f'"{column.name}" {SQL_TYPES[column.kind]}' + (" PRIMARY KEY NOT NULL" if column.name == "id" else "") for column in COLUMNS
)
# An update in place: REPLACE would delete and insert, in every index.
_SAVE = (
    f"INSERT INTO runs ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))}) ON CONFLICT (id) DO UPDATE SET "  # noqa: S608
    + ", ".join(f'"{column.name}" = excluded."{column.name}"' for column in COLUMNS if column.name != "id")
)
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS runs_created ON runs (created, id)",
    "CREATE INDEX IF NOT EXISTS runs_key ON runs (key)",
    "CREATE INDEX IF NOT EXISTS runs_sweep ON runs (sweep)",
    "CREATE INDEX IF NOT EXISTS runs_clip ON runs (clip) WHERE clip <> ''",
    "CREATE INDEX IF NOT EXISTS runs_running ON runs (host) WHERE status = 'running'",
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
        """Open the output folder; make it where it is missing. Runs whose process has died become failed.

        Args:
            directory: the output folder.
            timeout: seconds to wait for others who write.
        """
        self.directory = Path(directory).absolute()
        self.clips = self.directory / "clips"
        self.pictures = self.directory / "pictures"
        self.file = self.directory / DATABASE
        self.timeout = timeout
        try:
            self.clips.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.clips}: cannot be made ({error.strerror}); give another output folder") from None
        self._do(self._prepare)
        self._keep_spare()
        self.mark_dead()

    # Connections

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work with a connection of its own: one that is kept would not survive a fork, nor serve two threads."""
        try:
            return self._try(work)
        except sqlite3.Error as error:
            # On a full disk even reading fails, which needs room for an index: this is what the spare is kept for.
            full = _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
            if not (full and self._give_spare()):
                raise StoreError(self._words(error)) from error
        try:
            return self._try(work)
        except sqlite3.Error as error:
            raise StoreError(self._words(error)) from error

    def _try(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with closing(sqlite3.connect(self.file, timeout=self.timeout, isolation_level=None)) as connection:
            return work(connection)

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work in a transaction: all of it, or none."""

        def whole(connection: sqlite3.Connection) -> T:
            with _transaction(connection):
                return work(connection)

        return self._do(whole)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the table, or add the columns that the version that made it did not know."""
        found = {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
        there = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(f"{self.file} was made by a newer version of i2v_lab (schema {version}, this one reads up to "
                             f"{SCHEMA_VERSION}): update i2v_lab, or give another output folder")  # fmt: skip
        complete = found.issuperset(column.name for column in COLUMNS) and there.issuperset(membership.TABLES)
        if version == SCHEMA_VERSION and complete:
            return
        _use_write_ahead_log(connection, self.timeout)
        with _transaction(connection):  # another process may have done it since
            connection.execute(f"CREATE TABLE IF NOT EXISTS runs ({_TABLE})")
            found = {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
            for column in COLUMNS:
                if column.name not in found:
                    connection.execute(f'ALTER TABLE runs ADD COLUMN "{column.name}" {SQL_TYPES[column.kind]}')
            for statement in (*_INDEXES, *membership.CREATE):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _words(self, error: sqlite3.Error) -> str:
        code = _code(error)
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return f"{self.file} is not a record of runs, or is damaged ({error}): move it away to begin a new one"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"{self.file} was locked by another program for more than {self.timeout:g} s: close that and try again"
        if code == sqlite3.SQLITE_FULL:
            return f"{self.file} cannot be written: the disk is full; free some space in {self.directory}"
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
            return f"{self.file} cannot be opened for writing ({error}): check the rights of the folder, or give another one"
        if code == sqlite3.SQLITE_IOERR:
            return f"{self.file} cannot be read or written ({error}): is the disk full?"
        return f"{self.file}: {error}"

    def _keep_spare(self) -> None:
        """Hold back some of the disk, to give it up when a run that failed on a full disk has to be recorded."""
        spare = self.directory / SPARE
        try:
            with spare.open("xb") as file:
                file.write(os.urandom(SPARE_BYTES))  # zeros would be compressed away by some file systems
        except FileExistsError:
            pass
        except OSError:
            spare.unlink(missing_ok=True)

    def _give_spare(self) -> bool:
        try:
            (self.directory / SPARE).unlink()
        except OSError:
            return False
        return True

    # Writing

    def save(self, record: RunRecord) -> None:
        """Insert the record, or replace the one of the same id."""
        self.save_many([record])

    def save_many(self, records: Iterable[RunRecord]) -> None:
        """Save all of the records, or none, in one transaction."""
        rows = [to_row(record) for record in records]
        self._write(lambda connection: connection.executemany(_SAVE, rows))

    def mark_dead(self) -> int:
        """Runs that were running in processes of this host that are gone become failed. Returns how many did."""
        host = socket.gethostname()
        find = "SELECT id, pid, created FROM runs WHERE status = 'running' AND host = ?"
        mark = "UPDATE runs SET status = 'failed', reason = ?, finished = ? WHERE id = ? AND status = 'running'"
        running = self._do(lambda connection: connection.execute(find, (host,)).fetchall())
        dead = [id for id, pid, created in running if not _lives(pid, created)]
        if not dead:
            return 0
        reason, now = "the process ended before the clip was done", stamp(datetime.now(UTC))
        return self._write(lambda connection: connection.executemany(mark, [(reason, now, id) for id in dead]).rowcount)

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
        digest = hashlib.sha256()
        try:
            self.pictures.mkdir(exist_ok=True)
            with path.open("rb") as source, part.open("xb") as copy:
                while block := source.read(2**20):
                    digest.update(block)
                    copy.write(block)
            if digest.hexdigest() != sha256:
                raise StoreError(f"{path} changed while it was used: run it again")
            part.replace(kept)
        except OSError as error:
            raise StoreError(f"{path} cannot be copied to {self.pictures} ({error.strerror or error})") from None
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)
        return kept

    # Sweeps

    def begin_sweep(self, id: str, name: str, definition: str, members: Iterable[Member]) -> None:
        """Enter a sweep and its cells, all of them planned but for those that an earlier sweep of this name had run."""
        created, listed = stamp(datetime.now(UTC)), list(members)  # a list: after a full disk it is tried again
        self._write(lambda connection: membership.add(connection, id, name, definition, created, listed))

    def find_sweeps(self, name: str) -> list[SweepId]:
        """The sweeps of a name (or of an id), newest first."""
        return self._do(lambda connection: membership.of_name(connection, name))

    def cell_states(self, sweep: str) -> dict[str, tuple[str, str, str]]:
        """{params as JSON: (run id, status, reason)} of those cells of a sweep, by its id, that were run."""
        return self._do(lambda connection: membership.states(connection, sweep))

    def cell_counts(self, sweep: str) -> dict[str, int]:
        """{status: how many cells} of a sweep, by its id."""
        return self._do(lambda connection: membership.counts(connection, sweep))

    def set_cell_runs(self, sweep: str, runs: Mapping[int, str | None], keys: Mapping[int, str] | None = None) -> None:
        """Note which run is that of a cell, by its number, and the key where only the run could tell it."""
        if runs:
            self._write(lambda connection: membership.set_runs(connection, sweep, runs, keys or {}))

    def timings(self, model_name: str, device_name: str, limit: int = 2000, **like: Any) -> list[Sequence[Any]]:
        """What the newest done runs of a model on a device took; see `membership.timings`."""
        return self._do(lambda connection: membership.timings(connection, model_name, device_name, limit, like))

    # Reading

    def get(self, id: str) -> RunRecord | None:
        """The run of this id."""
        return next(iter(self._select("WHERE id = ?", (id,))), None)

    def find_done(self, key: str, ending: str = "") -> RunRecord | None:
        """The newest done run of the key whose clip is still there, and has this ending (".mp4")."""
        return self.find_all_done([key], ending).get(key)

    def find_all_done(self, keys: Iterable[str], ending: str = "") -> dict[str, RunRecord]:
        """As `find_done`, for many keys at once: {key: run} of those that are done."""
        wanted = json.dumps([key for key in dict.fromkeys(keys) if key])
        where = "WHERE key IN (SELECT value FROM json_each(?)) AND status = 'done' AND clip <> '' ORDER BY created DESC, id DESC"
        found: dict[str, RunRecord] = {}
        for row in self._rows(where, (wanted,)):
            record = from_row(row)
            if record.key not in found and record.clip.endswith(ending) and (self.directory / record.clip).is_file():
                found[record.key] = record
        return found

    def find_clip(self, path: Path | str) -> RunRecord | None:
        """The newest run that made this clip; a relative path is taken from the current folder, then from the output folder."""
        for base in (Path.cwd(), self.directory):
            with suppress(ValueError, OSError, RuntimeError):  # not inside the output folder, or no path at all
                clip = (base / path).resolve().relative_to(self.directory.resolve()).as_posix()
                if found := self._select("WHERE clip = ? AND clip <> '' ORDER BY created DESC, id DESC LIMIT 1", (clip,)):
                    return found[0]
        return None

    def find_picture(self, sha256: str) -> Path | None:
        """The kept picture with these bytes."""
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise StoreError(f"expected a sha256 of 64 hex digits, got {sha256[:80]!r}")
        return next(iter(sorted(self.pictures.glob(f"{sha256}*"))), None)

    def records(self, *, sweep: str | None = None, status: Status | None = None, limit: int | None = None) -> list[RunRecord]:
        """Runs in the order they were created; with `limit`, the newest so many.

        Args:
            sweep, status: only runs of these.
        """
        where, values = _where(sweep, status)
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
        return self._do(lambda connection: table(_chunks(connection.execute(query, values)), self.directory))

    def _cell_table(self, id: str, status: Status | None) -> pd.DataFrame:
        numbers: list[int] = []

        def chunks(connection: sqlite3.Connection) -> Iterator[list[tuple[Any, ...]]]:
            for rows in _chunks(connection.execute(membership.QUERY, (id, status))):
                numbers.extend(row[-1] for row in rows)
                yield [row[:-1] for row in rows]

        found = self._do(lambda connection: table(chunks(connection), self.directory))
        found.insert(0, "cell", numbers)
        return found

    def _rows(self, where: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self._do(lambda connection: connection.execute(f"SELECT {_NAMES} FROM runs {where}", values).fetchall())  # noqa: S608

    def _select(self, where: str, values: Sequence[Any]) -> list[RunRecord]:
        return [from_row(row) for row in self._rows(where, values)]


def _where(sweep: str | None, status: str | None) -> tuple[str, tuple[str, ...]]:
    given = {"sweep = ?": sweep, "status = ?": status}
    parts = {part: value for part, value in given.items() if value is not None}
    return f"WHERE {' AND '.join(parts)}" if parts else "", tuple(parts.values())


def _chunks(cursor: sqlite3.Cursor) -> Iterator[list[tuple[Any, ...]]]:
    while rows := cursor.fetchmany(CHUNK_ROWS):
        yield rows


def _code(error: sqlite3.Error) -> int:
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF  # the rest is finer detail


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")  # a transaction that begins by reading cannot wait for another writer
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite has rolled back by itself after some faults
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _use_write_ahead_log(connection: sqlite3.Connection, timeout: float) -> None:
    """Let readers and a writer work at once. It stays so: the mode is kept in the file."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # SQLite does not wait for others here, and several processes may open a new folder at once.
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _lives(pid: Any, created: Any) -> bool:
    """Whether the process that made a record at this time is still there."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # Numbers of processes come again, soon so in containers: one that began after the record is another process.
        return process.create_time() <= datetime.fromisoformat(created).timestamp() + CLOCK_SLACK_SECONDS
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError, TypeError, OverflowError):
        return False
