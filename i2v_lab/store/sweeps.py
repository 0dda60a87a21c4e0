"""Which runs are the cells of which sweep: two tables beside that of the runs, in the same database.

A cell is a row from the moment the sweep begins; the run that made it comes in later, and may be another sweep's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from i2v_lab.clip.levers import LEVERS
from i2v_lab.clip.record import COLUMNS, SQL_TYPES


class Member(NamedTuple):
    """A cell of a sweep, as it is kept.

    Attributes:
        number: from 1.
        key: the clip's key; "" where it is not known before the run (picture missing, checkpoint not fetched).
        params: the params as JSON.
        run: the id of the run of this cell; None before it ended.
    """

    number: int
    key: str
    params: str
    run: str | None = None


class SweepId(NamedTuple):
    """A sweep that was begun: its id (which is its folder's name), and the hash of its definition."""

    id: str
    definition: str


def add(connection: sqlite3.Connection, id: str, name: str, definition: str, created: str, members: Iterable[Member]) -> None:
    """Enter a sweep and its cells. Runs of cells with the same params in the newest sweep of this name are taken over."""
    newest = "(SELECT id FROM sweeps WHERE name = ? ORDER BY created DESC, id DESC LIMIT 1)"
    query = f"SELECT params, run FROM cells WHERE run IS NOT NULL AND sweep = {newest}"  # noqa: S608
    before = dict(connection.execute(query, (name,)))
    connection.execute("INSERT INTO sweeps VALUES (?, ?, ?, ?)", (id, name, definition, created))
    connection.executemany(
        "INSERT INTO cells (sweep, number, key, params, run) VALUES (?, ?, ?, ?, ?)",
        ((id, member.number, member.key, member.params, member.run or before.get(member.params)) for member in members),
    )


def of_name(connection: sqlite3.Connection, name: str) -> list[SweepId]:
    """The sweeps of a name, or the one of this id, newest first."""
    rows = connection.execute(
        "SELECT id, definition FROM sweeps WHERE name = ? OR id = ? ORDER BY created DESC, id DESC", (name, name)
    )
    return [SweepId(*row) for row in rows]


def states(connection: sqlite3.Connection, id: str) -> dict[str, tuple[str, str, str]]:
    """{params as JSON: (run id, status, reason)} of the cells of a sweep that have a run."""
    query = ("SELECT c.params, r.id, r.status, r.reason FROM cells c JOIN runs r ON r.id = c.run WHERE c.sweep = ?")  # fmt: skip
    return {params: (run, status, reason or "") for params, run, status, reason in connection.execute(query, (id,))}


def counts(connection: sqlite3.Connection, id: str) -> dict[str, int]:
    """{status: cells} of a sweep; a cell without a run is planned."""
    query = (
        "SELECT coalesce(r.status, 'planned'), count(*) FROM cells c LEFT JOIN runs r ON r.id = c.run WHERE c.sweep = ? GROUP BY 1"
    )
    return dict(connection.execute(query, (id,)))


def set_runs(connection: sqlite3.Connection, id: str, runs: Mapping[int, str | None], keys: Mapping[int, str]) -> None:
    """Note the runs, and the keys where they became known, of cells by number."""
    connection.executemany("UPDATE cells SET run = ? WHERE sweep = ? AND number = ?", ((run, id, n) for n, run in runs.items()))
    connection.executemany(
        "UPDATE cells SET key = ? WHERE sweep = ? AND number = ? AND key <> ?",
        ((key, id, n, key) for n, key in keys.items() if key),
    )


def _column(name: str, group: str, kind: Any, field: str) -> str:
    """A column of the runs as a cell has it: its own params, and what its run has, if there is one."""
    plain = {
        "id": "r.id",
        "status": "coalesce(r.status, 'planned')",
        "key": "coalesce(r.key, c.key)",
        "sweep": "coalesce(r.sweep, s.name)",
    }
    if group == "params":
        return f"CAST(json_extract(c.params, '$.{field}') AS {SQL_TYPES[kind]})"
    if name in ("notes", "metrics", "versions", "seconds_other"):
        return f"coalesce(r.\"{name}\", '{'[]' if name == 'notes' else '{}'}')"
    return plain.get(name, f'r."{name}"')


_SELECT = ", ".join(_column(column.name, column.group, column.kind, column.field) for column in COLUMNS)

# A cell that has no run (or whose run was deleted) shows the run that makes its clip now, or the one of another sweep that made it.
_RUN = (
    "coalesce((SELECT id FROM runs WHERE id = c.run), "
    "(SELECT id FROM runs WHERE key = c.key AND c.key <> '' AND fps = CAST(json_extract(c.params, '$.fps') AS TEXT) "
    "AND status IN ('done', 'running') ORDER BY created DESC, id DESC LIMIT 1))"
)
QUERY = (
    f"SELECT {_SELECT}, c.number FROM cells c JOIN sweeps s ON s.id = c.sweep LEFT JOIN runs r ON r.id = {_RUN} "  # noqa: S608
    "WHERE c.sweep = ? AND (?2 IS NULL OR coalesce(r.status, 'planned') = ?2) ORDER BY c.number"
)


def timings(
    connection: sqlite3.Connection, model_name: str, device_name: str, limit: int, like: Mapping[str, Any] | None = None
) -> list[Sequence[Any]]:
    """The newest done runs of a model on a device: (resolution, frames, steps, guidance, scheduler, each of LEVERS, seconds, file
    bytes, seconds of encode, denoise, decode and write).

    Seconds are without the stage "load"; those of a stage are None where they are not known.

    Args:
        like: only runs as fast as these for one shape: `dtype` that was used, `model` as in ClipParams or its `fingerprint`,
            `offload`: the tier, where it was one that offloads, else 0.
    """
    levers = ", ".join(f"coalesce({name}, '')" for name in LEVERS)
    query = (
        f"SELECT resolution, num_frames, num_inference_steps, guidance_scale, scheduler, {levers}, "  # noqa: S608 - names of fields
        "seconds_total - coalesce(seconds_load, 0), "
        "file_bytes, seconds_encode, seconds_denoise, seconds_decode, seconds_write "
        "FROM runs WHERE status = 'done' AND model_name = :model_name AND device_name = :device_name "
        "AND seconds_total IS NOT NULL AND coalesce(retimed_from, '') = '' "
    )
    if like:
        query += (
            "AND actual_dtype = :dtype AND (model = :model OR (model_fingerprint = :fingerprint AND model_fingerprint <> '')) "
            "AND CASE WHEN device LIKE 'cuda%' AND actual_tier >= 3 THEN actual_tier ELSE 0 END = :offload "
        )
    values = {"model_name": model_name, "device_name": device_name, "limit": limit, **(like or {})}
    return connection.execute(f"{query}ORDER BY created DESC LIMIT :limit", values).fetchall()
