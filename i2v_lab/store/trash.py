"""Deleted runs: their rows wait in a table of their own, their clips in clips/.trash, until they come back or go for good.

Nothing else reads that table, so a deleted run is in no list and no count, and its clip does not count as made.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from i2v_lab.clip.publish import publish
from i2v_lab.clip.record import COLUMNS
from i2v_lab.errors import StoreError
from i2v_lab.portable import replace
from i2v_lab.rights import make_folder
from i2v_lab.store.database import Database

FOLDER = "clips/.trash"  # on the disk of the clips, so that a clip is moved and never copied


def delete(database: Database, id: str, deleted: str) -> None:
    """Delete a run; see `Store.delete`.

    Args:
        deleted: the time; runs that were deleted together have the same.
    """
    # The row goes first: where the process dies before the clip has moved, `rebuild` finds the clip.
    clip, place = database.write(lambda connection: _put(connection, id, deleted))
    source = database.directory / clip
    try:
        if clip and source.is_file():
            make_folder(database.directory / FOLDER)
            replace(source, database.directory / place)
    except OSError as error:
        database.write(lambda connection: _take(connection, id, clip))
        raise StoreError(f"{source} cannot be moved to {FOLDER} ({error.strerror or error}): close the programs that play it, and "
                         "check the rights of the folder") from None  # fmt: skip


def undelete(database: Database, id: str) -> None:
    """Undo the deletion of a run; see `Store.undelete`."""
    clip, place = database.read(lambda connection: _look(connection, id))
    file = database.directory / place
    if place and file.is_file():
        folder = (database.directory / clip).parent
        try:
            moved = publish(file, folder, Path(clip).stem, file.suffix[1:])  # under a number where the name is taken
            file.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{file} cannot be moved to {folder} ({error.strerror or error})") from None
        clip = moved.relative_to(database.directory).as_posix()
    database.write(lambda connection: _take(connection, id, clip))


def named(connection: sqlite3.Connection, name: str) -> str:
    """The id of the deleted run of this id, or the newest whose clip had this file name."""
    rows = connection.execute("SELECT id, row FROM trash ORDER BY deleted DESC").fetchall()
    for id, row in rows:
        if name == id or Path(name).name == PurePosixPath(json.loads(row)["clip"] or "").name:
            return str(id)
    raise StoreError(f"there is no deleted run {name[:80]!r}; without names, --undo brings back those deleted last")


def remove(database: Database) -> int:
    """Remove all for good; see `Store.empty_trash`."""
    gone = []
    for id, place in database.read(lambda connection: connection.execute("SELECT id, place FROM trash").fetchall()):
        with suppress(OSError):
            if place:
                (database.directory / place).unlink(missing_ok=True)
            gone.append((id,))
    database.write(lambda connection: connection.executemany("DELETE FROM trash WHERE id = ?", gone))
    with suppress(OSError):  # one that is not empty stays
        (database.directory / FOLDER).rmdir()
    return len(gone)


def _put(connection: sqlite3.Connection, id: str, deleted: str) -> tuple[str, str]:
    """Take a run out of the table of runs. Returns where its clip is and where it goes, below the output folder; "" without one."""
    cursor = connection.execute("SELECT * FROM runs WHERE id = ?", (id,))
    if (values := cursor.fetchone()) is None:
        raise StoreError(f"there is no run {id[:80]!r}")
    row: dict[str, Any] = dict(zip((about[0] for about in cursor.description), values, strict=True))
    if row["status"] == "running":
        raise StoreError(f"run {id} is still running: stop it first, then delete it")
    clip = row["clip"] or ""
    place = f"{FOLDER}/{secrets.token_hex(4)}-{PurePosixPath(clip).name}" if clip else ""
    # The row is one text of JSON: a version with other columns can give it back.
    connection.execute("INSERT OR REPLACE INTO trash VALUES (?, ?, ?, ?)", (id, json.dumps(row), place, deleted))
    connection.execute("DELETE FROM runs WHERE id = ?", (id,))
    return clip, place


def _look(connection: sqlite3.Connection, id: str) -> tuple[str, str]:
    """Where the clip of a deleted run was and where it is, below the output folder; "" without one."""
    found = connection.execute("SELECT row, place FROM trash WHERE id = ?", (id,)).fetchone()
    if found is None:
        raise StoreError(f"there is no deleted run {id[:80]!r}")
    return json.loads(found[0])["clip"] or "", found[1]


def _take(connection: sqlite3.Connection, id: str, clip: str) -> None:
    """Give a run back to the table of runs, with its clip at this place."""
    row = json.loads(connection.execute("SELECT row FROM trash WHERE id = ?", (id,)).fetchone()[0]) | {"clip": clip}
    known = [column.name for column in COLUMNS if column.name in row]
    names, marks = ", ".join(f'"{name}"' for name in known), ", ".join("?" * len(known))
    # Where its clip was found again by itself, it has its run already.
    statement = f"INSERT OR IGNORE INTO runs ({names}) VALUES ({marks})"  # noqa: S608
    connection.execute(statement, [row[name] for name in known])
    connection.execute("DELETE FROM trash WHERE id = ?", (id,))


def last(connection: sqlite3.Connection) -> list[str]:
    """The ids of the runs that were deleted last, together."""
    return [id for (id,) in connection.execute("SELECT id FROM trash WHERE deleted = (SELECT max(deleted) FROM trash) ORDER BY id")]
