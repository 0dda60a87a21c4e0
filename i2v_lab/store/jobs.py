"""The queue: clips and sweeps that were asked for, in the order they came; a table of the output folder's database.

A clip's job has the id of the run that will make it, so its run can be looked up when its worker is gone. The processes that
ask and those that work share this table alone: each may be killed at any moment, and the others still know the state of all jobs.
"""

from __future__ import annotations

import heapq
import json
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.settings import Settings
from i2v_lab.store.database import Database
from i2v_lab.store.processes import asker_name, may_take

JobState = Literal["waiting", "running", "done", "failed", "out_of_memory", "stopped"]
JobKind = Literal["clip", "sweep", "tune"]
StopAfter = Literal["step", "cell"]
RATED_JOBS = 20  # the newest done jobs, from which the time of the next is predicted
FIXED_STEPS = 5  # what encoding, decoding and writing cost, in denoising steps; roughly


@dataclass(frozen=True)
class Job:
    """One clip or sweep that was asked for. Times are seconds since 1970, or None.

    Attributes:
        id: of the job; a clip's run has the same.
        version: grows with each change of any job; no two jobs share one.
        params: of a clip: ClipParams as JSON; the picture is a path or a sample.
        sweep: of a sweep or a tune: its definition in YAML.
        settings: device, parallel, format and prefix for the clips, as JSON; "": those of the worker.
        force: make the clip even where it was made before.
        work: of a clip: how much there is to compute, pixels x frames x steps.
        expected: seconds for the whole, as predicted; None: not known.
        owner: the process that asked; see `processes.asker_name`. Its worker makes the job; once it has ended, any worker does.
        stage, step, steps: where the clip is; `steps` is None where it is not known.
        status: as JSON, while it runs: note (what it waits for), with its code and values (see errors.Message). Of a clip also
            stages (seconds of those that ended), previews (how many were written) and where (HOST:PID of the worker of a cluster that
            makes it), of a sweep the fields of its SweepStatus.
        stop: why it should end; "" while nobody asked. stop_after: this step, or this cell.
        watched: until when somebody looks at previews.
        worker: the process that makes it; see `processes.own_name`.
        result: as JSON, once it is done. Of a clip: run, clip, seconds, peak_gib, file_bytes, frames_sha256, made_before.
            Of a sweep: sweep, counts, ran. Of a tune: tune (its folder), pair (runs to vote on next), complete.
    """

    number: int
    id: str
    version: int
    kind: JobKind
    state: JobState
    reason: str
    params: str
    sweep: str
    settings: str
    force: bool
    work: float
    expected: float | None
    owner: str
    created: float
    started: float | None
    finished: float | None
    stage: str
    step: int
    steps: int | None
    stage_started: float | None
    status: str
    stop: str
    stop_after: str
    watched: float
    worker: str
    result: str

    @property
    def ended(self) -> bool:
        return self.state not in ("waiting", "running")


_COLUMNS = ", ".join(field.name for field in fields(Job))


class QueueFull(Exception):
    """No more jobs may wait."""


class SweepLike(Protocol):
    """What the queue needs of a sweep."""

    def to_yaml(self) -> str: ...


class Jobs:
    """The jobs of an output folder. Many processes and threads may use one; each method is one short transaction.

    Every method raises StoreError where the database cannot be read or written.
    """

    def __init__(self, database: Database, settings: Settings | None = None) -> None:
        """
        Args:
            settings: of the jobs that are added here; None: those of the worker that makes them.
        """
        self.database = database
        self.settings = "" if settings is None else json.dumps(
            {"device": settings.device, "parallel": settings.parallel, "format": settings.output.format, "prefix": settings.output.prefix}
        )  # fmt: skip
        self.owner = asker_name()

    def add_clip(self, params: ClipParams, limit: int | None = None, force: bool = False, *, expected: float | None = None) -> Job:
        """Put a clip at the end of the queue.

        Args:
            limit: how many jobs may wait; None: any number.
            force: make it even where it was made before.
            expected: seconds that it is predicted to take.

        Raises:
            QueueFull: `limit` jobs wait already.
        """
        plain = json.dumps(params.plain())
        return self._add(limit, kind="clip", params=plain, force=force, work=work_of(params), expected=expected)

    def add_sweep(self, sweep: SweepLike, *, expected: float | None = None) -> Job:
        """Put a sweep at the end of the queue."""
        return self._add(None, kind="sweep", sweep=sweep.to_yaml(), expected=expected)

    def add_tune(self, tune: SweepLike) -> Job:
        """Put a search for the best setting at the end of the queue."""
        return self._add(None, kind="tune", sweep=tune.to_yaml())

    def _add(self, limit: int | None, **columns: Any) -> Job:
        columns |= {"id": new_id(), "state": "waiting", "created": time.time(), "owner": self.owner, "settings": self.settings}

        def put(connection: sqlite3.Connection) -> Job:
            (waiting,) = connection.execute("SELECT COUNT(*) FROM jobs WHERE state = 'waiting'").fetchone()
            if limit is not None and waiting >= limit:
                raise QueueFull
            places = ", ".join("?" * len(columns))
            connection.execute(f"INSERT INTO jobs ({', '.join(columns)}) VALUES ({places})", (*columns.values(),))  # noqa: S608
            return _select(connection, "WHERE id = ?", (columns["id"],))[0]

        return self.database.write(put)

    def claim(self, worker: str, owner: str = "") -> Job | None:
        """Take the first job that waits; None where none does.

        Args:
            owner: the process whose jobs are taken, beside those of processes that have ended; "": any job.
        """
        # Looked at without the lock of a writer, several times a second.
        query = "SELECT DISTINCT owner FROM jobs WHERE state = 'waiting'"
        owners = [name for (name,) in self.database.read(lambda connection: connection.execute(query).fetchall())]
        if not (free := [name for name in owners if not owner or may_take(name, owner)]):
            return None

        take = (
            "UPDATE jobs SET state = 'running', worker = ?, started = ? WHERE number = (SELECT MIN(number) FROM jobs "  # noqa: S608
            f"WHERE state = 'waiting' AND owner IN ({', '.join('?' * len(free))})) RETURNING {_COLUMNS}"
        )
        rows = self.database.write(lambda connection: connection.execute(take, (worker, time.time(), *free)).fetchall())
        return Job(*rows[0]) if rows else None

    def note(self, id: str, stage: str, step: int, steps: int | None, stage_started: float, status: str = "") -> Job | None:
        """Note where a running job is. Returns it, with `stop` where it should end; None where it no longer runs."""
        rows = self.database.update(
            "UPDATE jobs SET stage = ?, step = ?, steps = ?, stage_started = ?, status = ? "  # noqa: S608
            f"WHERE id = ? AND state = 'running' RETURNING {_COLUMNS}",
            (stage, step, steps, stage_started, status, id),
        )
        return Job(*rows[0]) if rows else None  # type: ignore[arg-type]

    def end(self, job: Job, state: JobState, reason: str = "", result: str = "") -> bool:
        """A running job ends. Only the worker that holds it can end it, and once: returns whether this was it."""

        def close(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM previews WHERE job = ?", (job.id,))
            values = (state, reason, result, time.time(), job.id, job.worker)
            statement = (
                "UPDATE jobs SET state = ?, reason = ?, result = ?, finished = ? WHERE id = ? AND state = 'running' AND worker = ?"
            )
            return connection.execute(statement, values).rowcount == 1

        return self.database.write(close)

    def stop(self, id: str, reason: str, after: StopAfter = "step") -> Job | None:
        """End a job: at once while it waits; while it runs after its next step, or after this cell of a sweep.

        Returns:
            The job; None where there is none of this id.
        """

        def ask(connection: sqlite3.Connection) -> Job | None:
            connection.execute(
                "UPDATE jobs SET state = 'stopped', reason = ?, finished = ? WHERE id = ? AND state = 'waiting'",
                (reason, time.time(), id),
            )
            connection.execute(
                "UPDATE jobs SET stop = ?, stop_after = ? WHERE id = ? AND state = 'running' AND stop_after <> 'step'",
                (reason, after, id),
            )
            return next(iter(_select(connection, "WHERE id = ?", (id,))), None)

        return self.database.write(ask)

    def fail(self, id: str, reason: str) -> None:
        """A job that waits fails: no worker could be started for it."""
        self.database.update(
            "UPDATE jobs SET state = 'failed', reason = ?, finished = ? WHERE id = ? AND state = 'waiting'",
            (reason, time.time(), id),
        )

    def get(self, id: str) -> Job | None:
        """The job of this id."""
        return next(iter(self._find("WHERE id = ?", id)), None)

    def newest(self, limit: int, state: JobState | None = None, kind: JobKind | None = None) -> list[Job]:
        """The newest jobs, at most `limit`, the newest first."""
        wanted = "WHERE state = COALESCE(?, state) AND kind = COALESCE(?, kind) ORDER BY number DESC LIMIT ?"
        return self._find(wanted, state, kind, limit)

    def active(self, kind: JobKind | None = None) -> list[Job]:
        """Those that run or wait, in their order."""
        return self._find("WHERE state IN ('waiting', 'running') AND kind = COALESCE(?, kind) ORDER BY number", kind)

    def _find(self, where: str, *values: Any) -> list[Job]:
        return self.database.read(lambda connection: _select(connection, where, values))

    def look(self, version: int) -> tuple[list[Job], list[Job]]:
        """(the active jobs, in their order; those that changed after `version`), seen at one moment.

        Where no job has that version any more, the database is another one, and all of its jobs have changed.
        """

        def find(connection: sqlite3.Connection) -> tuple[list[Job], list[Job]]:
            connection.execute("BEGIN")
            active = _select(connection, "WHERE state IN ('waiting', 'running') ORDER BY number", ())
            changed = "WHERE version > ?1 OR (SELECT MAX(version) FROM jobs) < ?1 ORDER BY version"
            return active, _select(connection, changed, (version,))

        return self.database.read(find)

    def restore(self, jobs: Sequence[Job]) -> None:
        """Enter again those of the jobs that are not in the table: jobs are never deleted, so the database was lost."""
        kept = [field.name for field in fields(Job) if field.name not in ("number", "version")]
        insert = f"INSERT OR IGNORE INTO jobs ({', '.join(kept)}) VALUES ({', '.join('?' * len(kept))})"  # noqa: S608
        rows = [[getattr(job, name) for name in kept] for job in jobs]
        self.database.write(lambda connection: connection.executemany(insert, rows))

    def last_version(self) -> int:
        """The version of the newest change; 0 where there was none."""
        return int(self._value("SELECT COALESCE(MAX(version), 0) FROM jobs"))

    def last_taken(self) -> int:
        """The number of the newest job that was ever taken by a worker; 0 where none was."""
        return int(self._value("SELECT COALESCE(MAX(number), 0) FROM jobs WHERE worker <> ''"))

    def rate(self) -> float | None:
        """Seconds for a unit of work, from the newest done clips; None before the first. A job found done after a kill has no result."""
        found = self._value(
            "SELECT SUM(finished - started) / SUM(work) FROM (SELECT * FROM jobs WHERE state = 'done' AND kind = 'clip' "  # noqa: S608
            "AND CASE WHEN json_valid(result) THEN json_extract(result, '$.made_before') END = 0 "
            f"ORDER BY finished DESC LIMIT {RATED_JOBS})"
        )
        return found or None

    def _value(self, query: str) -> Any:
        return self.database.read(lambda connection: connection.execute(query).fetchone()[0])

    # Previews

    def watch(self, until: float) -> None:
        """Somebody looks at previews until this time: workers render them."""
        self.database.update("UPDATE jobs SET watched = ? WHERE state = 'running' AND watched < ?", (until, until))

    def keep_preview(self, id: str, data: bytes) -> None:
        """Keep the newest preview of a running clip: a moving WebP."""
        self.database.update("INSERT OR REPLACE INTO previews (job, data) VALUES (?, ?)", (id, data))

    def preview(self, id: str) -> bytes:
        """The newest preview of a running clip; b"" where there is none."""
        query = "SELECT data FROM previews WHERE job = ?"
        found = self.database.read(lambda connection: connection.execute(query, (id,)).fetchone())
        return bytes(found[0]) if found else b""


def _select(connection: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Job]:
    return [Job(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values)]  # noqa: S608


def work_of(params: ClipParams) -> float:
    """How much there is to compute: pixels x frames x steps."""
    return float(params.height * params.width * params.num_frames * (params.num_inference_steps + FIXED_STEPS))


def forecast(active: Sequence[Job], rate: float | None, now: float, workers: int = 1) -> dict[str, float | None]:
    """Seconds until each of the active jobs, in their order, is done; None where nothing is known yet.

    Args:
        workers: how many jobs are made at once: the next one begins where the first of them ends.
    """
    found: dict[str, float | None] = {}
    free, known = [0.0] * workers, True
    for job in active:
        left = _alone(job, rate, now)
        known = known and left is not None
        found[job.id] = free[0] + left if known and left is not None else None
        if (end := found[job.id]) is not None:
            heapq.heapreplace(free, end)
    return found


def _alone(job: Job, rate: float | None, now: float) -> float | None:
    """Seconds that a job still takes once it runs."""
    if job.kind != "clip" and job.status:
        left: float | None = json.loads(job.status)["seconds_left"]
        return left
    if job.state == "running" and job.stage == "denoise" and job.steps and job.step and job.stage_started:
        return (now - job.stage_started) / job.step * (job.steps - job.step)
    whole = job.expected if job.expected is not None or rate is None or job.kind != "clip" else rate * job.work
    if whole is None:
        return None
    return max(0.0, whole - (now - job.started)) if job.started else whole


def job_of(record: RunRecord) -> Job:
    """The job of a done run, for a queue that no longer knows it because the database was lost."""
    assert record.params and record.finished  # noqa: S101 - it is done
    params, created, finished = json.dumps(record.params.plain()), record.created.timestamp(), record.finished.timestamp()
    return Job(
        number=0, id=record.id, version=0, kind="clip", state="done", reason="", params=params, sweep="", settings="", force=False,
        work=0.0, expected=None, owner="", created=created, started=created, finished=finished, stage="", step=0, steps=None,
        stage_started=None, status="", stop="", stop_after="", watched=0.0, worker="", result=result_of(record, record.id),
    )  # fmt: skip


def result_of(record: RunRecord, job_id: str) -> str:
    """The `result` of a job whose run is this one."""
    peak = record.peak_vram_reserved_gib or record.peak_ram_gib
    return json.dumps({
        "run": record.id, "clip": record.clip, "seconds": record.seconds.get("total", 0.0), "peak_gib": peak,
        "file_bytes": record.file_bytes, "frames_sha256": record.frames_sha256, "made_before": record.id != job_id,
    })  # fmt: skip
