"""All tables of runs.db, and how those of an older version are brought up to date."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import Any

from i2v_lab.clip.key import clip_key
from i2v_lab.clip.record import COLUMNS, SQL_TYPES, from_row
from i2v_lab.errors import StoreError

VERSION = 2  # raise it where an older package could no longer read what this one writes

_RUNS = ", ".join(
    f'"{column.name}" {SQL_TYPES[column.kind]}' + (" PRIMARY KEY NOT NULL" if column.name == "id" else "") for column in COLUMNS
)
TABLES = {
    "runs": f"CREATE TABLE IF NOT EXISTS runs ({_RUNS})",
    "sweeps": "CREATE TABLE IF NOT EXISTS sweeps (id TEXT PRIMARY KEY NOT NULL, name TEXT NOT NULL, definition TEXT NOT NULL, "
    "created TEXT NOT NULL)",
    "cells": "CREATE TABLE IF NOT EXISTS cells (sweep TEXT NOT NULL, number INTEGER NOT NULL, key TEXT NOT NULL, "
    "params TEXT NOT NULL, run TEXT, PRIMARY KEY (sweep, number)) WITHOUT ROWID",
    "opinions": "CREATE TABLE IF NOT EXISTS opinions (run TEXT PRIMARY KEY NOT NULL, stars INTEGER, note TEXT NOT NULL DEFAULT '', "
    "changed TEXT NOT NULL)",
    "votes": 'CREATE TABLE IF NOT EXISTS votes (number INTEGER PRIMARY KEY, "left" TEXT NOT NULL, "right" TEXT NOT NULL, '
    "better TEXT NOT NULL, created TEXT NOT NULL)",
    "jobs": "CREATE TABLE IF NOT EXISTS jobs (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, "
    "version INTEGER NOT NULL DEFAULT 0, kind TEXT NOT NULL DEFAULT 'clip', state TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '', "
    "params TEXT NOT NULL DEFAULT '', sweep TEXT NOT NULL DEFAULT '', settings TEXT NOT NULL DEFAULT '', "
    "force INTEGER NOT NULL DEFAULT 0, work REAL NOT NULL DEFAULT 0, expected REAL, owner TEXT NOT NULL DEFAULT '', "
    "created REAL NOT NULL, started REAL, finished REAL, stage TEXT NOT NULL DEFAULT '', step INTEGER NOT NULL DEFAULT 0, "
    "steps INTEGER, stage_started REAL, status TEXT NOT NULL DEFAULT '', stop TEXT NOT NULL DEFAULT '', "
    "stop_after TEXT NOT NULL DEFAULT '', watched REAL NOT NULL DEFAULT 0, worker TEXT NOT NULL DEFAULT '', "
    "result TEXT NOT NULL DEFAULT '')",
    "previews": "CREATE TABLE IF NOT EXISTS previews (job TEXT PRIMARY KEY NOT NULL, data BLOB NOT NULL)",
    "trash": "CREATE TABLE IF NOT EXISTS trash (id TEXT PRIMARY KEY NOT NULL, row TEXT NOT NULL, place TEXT NOT NULL, "
    "deleted TEXT NOT NULL)",
}
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS runs_created ON runs (created, id)",
    "CREATE INDEX IF NOT EXISTS runs_key ON runs (key)",
    "CREATE INDEX IF NOT EXISTS runs_sweep ON runs (sweep)",
    "CREATE INDEX IF NOT EXISTS runs_clip ON runs (clip) WHERE clip <> ''",
    "CREATE INDEX IF NOT EXISTS runs_running ON runs (host) WHERE status = 'running'",
    "CREATE UNIQUE INDEX IF NOT EXISTS jobs_version ON jobs (version)",
    "CREATE INDEX IF NOT EXISTS jobs_active ON jobs (number) WHERE state IN ('waiting', 'running')",
    "CREATE INDEX IF NOT EXISTS jobs_taken ON jobs (number) WHERE worker <> ''",
    "CREATE INDEX IF NOT EXISTS jobs_done ON jobs (finished) WHERE state = 'done'",
    # No two changes have one version, so that a reader can ask for what changed after the last one it saw.
    "CREATE TRIGGER IF NOT EXISTS jobs_new AFTER INSERT ON jobs BEGIN "
    "UPDATE jobs SET version = (SELECT MAX(version) + 1 FROM jobs) WHERE number = new.number; END",
    "CREATE TRIGGER IF NOT EXISTS jobs_changed AFTER UPDATE OF state, stage, step, steps, status, stop ON jobs BEGIN "
    "UPDATE jobs SET version = (SELECT MAX(version) + 1 FROM jobs) WHERE number = new.number; END",
)


def version(connection: sqlite3.Connection) -> int:
    """The version of the tables in a database; 0 in a new one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {
        row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    }


def is_new(connection: sqlite3.Connection) -> bool:
    """Whether nothing is in a database yet."""
    return not _tables(connection)


def is_foreign(connection: sqlite3.Connection) -> bool:
    """Whether a database is another program's: it has tables, and not ours."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
    return not is_new(connection) and not (
        columns >= {"id", "status", "created"} or _tables(connection) >= TABLES.keys() - {"runs", "trash"}
    )


def is_current(connection: sqlite3.Connection) -> bool:
    """Whether nothing is left to do for `prepare`."""
    return version(connection) == VERSION and _tables(connection) >= TABLES.keys() and not _missing_columns(connection)


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables, or bring those of an older version up to date. Inside a transaction: another process may do the same."""
    for statement in TABLES.values():
        connection.execute(statement)
    for name, kind in _missing_columns(connection):
        connection.execute(f'ALTER TABLE runs ADD COLUMN "{name}" {kind}')
    for statement in _INDEXES:
        connection.execute(statement)
    if version(connection) == 1:
        _leave_fps_out_of_keys(connection)
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _leave_fps_out_of_keys(connection: sqlite3.Connection) -> None:
    """Version 1 had fps in the keys. A run whose key can be computed again gets the new one, and its cells with it."""
    new: dict[str, str] = {}
    names = ", ".join(f'"{column.name}"' for column in COLUMNS)
    for row in connection.execute(f"SELECT {names} FROM runs WHERE key <> ''").fetchall():  # noqa: S608
        try:
            record = from_row(row)
        except StoreError:  # it cannot be read; the user who asks for it sees why
            continue
        if record.params is None or record.key in new:
            continue
        known: Any = SimpleNamespace(name=record.model_name, fingerprint=record.model_fingerprint, dtype=record.dtype)
        for changes in ({}, {"decoded": "in tiles"}):
            if clip_key(record.params, record.image_sha256, known, {**changes, "fps": record.params.plain()["fps"]}) == record.key:
                new[record.key] = clip_key(record.params, record.image_sha256, known, changes)
    pairs = [(key, old) for old, key in new.items()]
    connection.executemany("UPDATE runs SET key = ? WHERE key = ?", pairs)
    connection.executemany("UPDATE cells SET key = ? WHERE key = ?", pairs)


def _missing_columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    found = {row[1] for row in connection.execute("PRAGMA table_info(runs)")}
    return [(column.name, SQL_TYPES[column.kind]) for column in COLUMNS if column.name not in found]
