"""runs.db, the one SQLite file of an output folder: connections, transactions, and the errors where it cannot be used.

Nothing is made until something is written: a command that only reads leaves an empty folder empty.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from i2v_lab.errors import StoreError
from i2v_lab.rights import keep_private, make_folder, opener
from i2v_lab.store import schema

T = TypeVar("T")

NAME = "runs.db"
SPARE = "runs.db-spare"
SPARE_BYTES = 256 * 1024  # some 30 pages of 4 KiB for the log of a write, its index of 32 KiB, and the table's own growth


class Database:
    """The database of an output folder. Many processes and threads may use one.

    The file may go away at any time: the next call makes it again, and calls `made`.

    Every method raises StoreError, one line, where the file cannot be read or written: it is damaged, made by a newer
    version or by another program, locked for longer than `timeout`, or the disk is full.

    Attributes:
        directory: the output folder, absolute. file: the database.
        timeout: seconds to wait for others who write.
        made: called after the tables were made in a new file.
    """

    def __init__(self, directory: Path, *, timeout: float = 30.0) -> None:
        self.directory = Path(directory).absolute()
        self.file = self.directory / NAME
        self.timeout = timeout
        self.made: Callable[[], None] = lambda: None
        if self.directory.exists() and not self.directory.is_dir():
            raise StoreError(f"{self.directory}: expected a folder, got a file; give another output folder")
        self._checked: tuple[int, int] | None = None  # the file whose tables are known to be right

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work that only reads. Where there is no file yet it sees empty tables, and none is made."""
        if not self.file.exists():
            return self._in_memory(work)
        try:
            return self._with_room(work)
        except StoreError as error:
            # A folder that cannot be written to is still read: SQLite would make files beside the database.
            if not is_closed(error):
                raise
        return self._in_memory(work, f"{self.file.as_uri()}?immutable=1")

    def _in_memory(self, work: Callable[[sqlite3.Connection], T], source: str = "") -> T:
        """Do some work on a copy in memory, empty or of a file that stays as it is; an older version's is brought up to date."""
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            try:
                if source:
                    with closing(sqlite3.connect(source, uri=True)) as original:
                        original.backup(connection)
                self._check_origin(connection)
                schema.prepare(connection)
                return work(connection)
            except sqlite3.Error as error:
                raise StoreError(self._words(error)) from error

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work in a transaction: all of it, or none. The first time the folder and the file are made."""
        self._make_folder()
        self._keep_spare()

        def whole(connection: sqlite3.Connection) -> T:
            with _transaction(connection):
                return work(connection)

        return self._with_room(whole)

    def update(self, statement: str, values: tuple[object, ...]) -> list[tuple[object, ...]]:
        """One statement by itself, such as the place where a clip is: it may be lost in a power cut."""

        def run(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
            connection.execute("PRAGMA synchronous = NORMAL")
            return connection.execute(statement, values).fetchall()

        self._make_folder()
        return self._with_room(run)

    def check(self) -> str:
        """Read the whole file, and say in a line what is in it."""
        if not self.file.exists():
            return f"none yet in {self.directory}"

        def look(connection: sqlite3.Connection) -> str:
            if (found := connection.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(found)
            runs, jobs = (connection.execute(f"SELECT COUNT(*) FROM {name}").fetchone()[0] for name in ("runs", "jobs"))  # noqa: S608
            return f"{self.file}, {runs} runs, {jobs} jobs"

        return self.read(look)

    def stamp(self) -> tuple[int, ...]:
        """Differs from the one before where something was written meanwhile, by any process; it costs two looks at the folder."""
        found: list[int] = []
        for file in (self.file, self.file.with_name(f"{self.file.name}-wal")):
            with suppress(OSError):
                about = file.stat()
                if about.st_size:  # a reader makes an empty log, and removes it
                    found += [about.st_ino, about.st_size, about.st_mtime_ns]
        return tuple(found)

    def _make_folder(self) -> None:
        try:
            make_folder(self.directory)
        except OSError as error:
            raise StoreError(f"{self.directory}: cannot be made ({error.strerror}); give another output folder") from None

    def _identity(self) -> tuple[int, int] | None:
        with suppress(OSError):
            about = self.file.stat()
            return about.st_dev, about.st_ino
        return None

    def _check_origin(self, connection: sqlite3.Connection) -> None:
        if schema.is_foreign(connection):
            raise StoreError(f"{self.file} is not a record of runs, but another program's database: move it away, or give another "
                             "output folder")  # fmt: skip
        if (found := schema.version(connection)) > schema.VERSION:
            raise StoreError(f"{self.file} was made by a newer version of i2v_lab (schema {found}, this one reads up to "
                             f"{schema.VERSION}): update i2v_lab, or give another output folder")  # fmt: skip

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Make the tables, or bring them up to date."""
        with closing(sqlite3.connect(f"{self.file.as_uri()}?mode=ro", uri=True)) as reader:  # closing it changes nothing
            self._check_origin(reader)
            is_new, is_current = schema.is_new(reader), schema.is_current(reader)
        if is_new:  # never by opening it: to close a file releases the locks that SQLite has on it in this process
            with suppress(OSError):
                keep_private(self.file)
        if not is_current:
            _use_write_ahead_log(connection, self.timeout)
            with _transaction(connection):
                schema.prepare(connection)
        self._checked = self._identity()
        if is_new:
            self.made()

    def _with_room(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do some work with a new connection: one that is kept would not survive a fork, nor serve two threads."""
        try:
            return self._connected(work)
        except sqlite3.Error as error:
            # On a full disk even reading fails, which needs room for an index: the reserved file is freed for that.
            full = _code(error) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
            if not (full and self._give_spare()):
                raise StoreError(self._words(error)) from error
        try:
            return self._connected(work)
        except sqlite3.Error as error:
            raise StoreError(self._words(error)) from error

    def _connected(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with closing(sqlite3.connect(self.file, timeout=self.timeout, isolation_level=None)) as connection:
            if self._checked is None or self._checked != self._identity():
                self._prepare(connection)
            try:
                return work(connection)
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):
                    raise
            self._prepare(connection)  # a table was dropped, or the file is a new one with the number of the old
            return work(connection)

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
        """Reserve some of the disk, to free it when a run that failed on a full disk has to be recorded."""
        spare = self.directory / SPARE
        try:
            with open(spare, "xb", opener=opener) as file:
                file.write(os.urandom(SPARE_BYTES))  # zeros would be compressed away by some file systems
        except FileExistsError:
            pass
        except OSError:
            with suppress(OSError):
                spare.unlink(missing_ok=True)

    def _give_spare(self) -> bool:
        with suppress(OSError):
            (self.directory / SPARE).unlink()
            return True
        return False


def is_closed(error: StoreError) -> bool:
    """Whether SQLite was not allowed to write."""
    cause = error.__cause__
    return isinstance(cause, sqlite3.Error) and _code(cause) in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


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
