"""The queue of the server: jobs in one SQLite file of the output folder, in the order they came.

A job's id is that of the run that will make its clip, so whoever finds a job without a worker can look up what came of it.
Server and worker talk through this file alone: either may be killed at any moment, and the other still knows where all stands.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.errors import StoreError
from i2v_lab.store.database import Database

__all__ = ["DATABASE", "STATES", "Full", "Job", "JobQueue", "State", "forecast", "lives", "own_name", "result_of"]

T = TypeVar("T")
State = Literal["waiting", "running", "done", "failed", "out_of_memory", "stopped"]
STATES: tuple[State, ...] = ("waiting", "running", "done", "failed", "out_of_memory", "stopped")
DATABASE = "jobs.db"
SCHEMA_VERSION = 1
RATED_JOBS = 20  # done jobs that tell how long the next will take
FIXED_STEPS = 5  # what encoding, decoding and writing cost, in denoising steps; roughly


@dataclass(frozen=True)
class Job:
    """One clip that was asked for. Times are seconds since 1970, or None.

    Attributes:
        id: of the job, and of its run.
        version: grows with each change of any job; no two jobs share one.
        params: ClipParams as JSON; the picture is a path in the output folder or a sample.
        work: how much there is to compute: pixels x frames x steps.
        stage, step, steps: where the clip stands; `steps` is None where it is not known.
        stop: why it should end; "" while nobody asked.
        worker: who makes it; see `own_name`.
        result: as JSON, of a done job: run, clip, seconds, peak_gib, file_bytes, frames_sha256, made_before.
    """

    number: int
    id: str
    version: int
    state: State
    reason: str
    params: str
    work: float
    created: float
    started: float | None
    finished: float | None
    stage: str
    step: int
    steps: int | None
    stage_started: float | None
    stop: str
    worker: str
    result: str

    kind = "clip"

    @property
    def ended(self) -> bool:
        return self.state not in ("waiting", "running")


_COLUMNS = ", ".join(field.name for field in fields(Job))
_CREATE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, version INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '', params TEXT NOT NULL, work REAL NOT NULL, created REAL NOT NULL, started REAL,
    finished REAL, stage TEXT NOT NULL DEFAULT '', step INTEGER NOT NULL DEFAULT 0, steps INTEGER, stage_started REAL,
    stop TEXT NOT NULL DEFAULT '', worker TEXT NOT NULL DEFAULT '', result TEXT NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX IF NOT EXISTS jobs_version ON jobs (version);
CREATE INDEX IF NOT EXISTS jobs_active ON jobs (number) WHERE state IN ('waiting', 'running');
CREATE INDEX IF NOT EXISTS jobs_taken ON jobs (number) WHERE worker <> '';
CREATE INDEX IF NOT EXISTS jobs_done ON jobs (finished) WHERE state = 'done';
CREATE TRIGGER IF NOT EXISTS jobs_new AFTER INSERT ON jobs BEGIN
    UPDATE jobs SET version = (SELECT MAX(version) + 1 FROM jobs) WHERE number = new.number;
END;
CREATE TRIGGER IF NOT EXISTS jobs_changed AFTER UPDATE OF state, stage, step, steps, stop ON jobs BEGIN
    UPDATE jobs SET version = (SELECT MAX(version) + 1 FROM jobs) WHERE number = new.number;
END;
"""


class Full(Exception):
    """As many jobs wait as may."""


class JobQueue:
    """The jobs of an output folder. Many processes and threads may use one; each method is one short transaction.

    Every method raises StoreError where the file cannot be read or written.
    """

    def __init__(self, directory: Path, *, timeout: float = 30.0) -> None:
        """Open the queue of an output folder that is there; make it where it is missing."""
        self.file = Path(directory).absolute() / DATABASE
        self.timeout = timeout

        def prepare(connection: sqlite3.Connection) -> None:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{self.file} was made by a newer version of i2v_lab: update i2v_lab, or give another output folder"
                )
            if version < SCHEMA_VERSION:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(f"{_CREATE} PRAGMA user_version = {SCHEMA_VERSION};")

        self._do(prepare)

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with closing(sqlite3.connect(self.file, timeout=self.timeout, isolation_level=None)) as connection:
                return work(connection)
        except sqlite3.Error as error:
            raise StoreError(f"{self.file}: the queue cannot be read or written ({error})") from error

    def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def whole(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                found = work(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
            return found

        return self._do(whole)

    def add(self, params: ClipParams, limit: int) -> Job:
        """Put a clip at the end of the queue.

        Raises:
            Full: `limit` jobs wait already.
        """
        row = (new_id(), json.dumps(params.plain()), work_of(params), time.time())

        def put(connection: sqlite3.Connection) -> Job:
            (waiting,) = connection.execute("SELECT COUNT(*) FROM jobs WHERE state = 'waiting'").fetchone()
            if waiting >= limit:
                raise Full
            connection.execute("INSERT INTO jobs (state, id, params, work, created) VALUES ('waiting', ?, ?, ?, ?)", row)
            return _select(connection, "WHERE id = ?", (row[0],))[0]

        return self._write(put)

    def claim(self, worker: str) -> Job | None:
        """Take the first job that waits; None where none does."""

        def take(connection: sqlite3.Connection) -> Job | None:
            found = _select(connection, "WHERE state = 'waiting' ORDER BY number LIMIT 1", ())
            if not found:
                return None
            connection.execute(
                "UPDATE jobs SET state = 'running', worker = ?, started = ? WHERE id = ?",
                (worker, time.time(), found[0].id),
            )
            return _select(connection, "WHERE id = ?", (found[0].id,))[0]

        if not self._do(lambda connection: connection.execute("SELECT 1 FROM jobs WHERE state = 'waiting' LIMIT 1").fetchone()):
            return None  # looked at without the lock of a writer, several times a second
        return self._write(take)

    def tell(self, id: str, stage: str, step: int, steps: int | None, stage_started: float) -> str:
        """Note where a running clip stands. Returns why it should end, "" where it should not."""

        def note(connection: sqlite3.Connection) -> str:
            connection.execute("PRAGMA synchronous = NORMAL")  # nobody misses the last step after a power cut
            found = connection.execute(
                "UPDATE jobs SET stage = ?, step = ?, steps = ?, stage_started = ? "
                "WHERE id = ? AND state = 'running' RETURNING stop",
                (stage, step, steps, stage_started, id),
            ).fetchone()
            return str(found[0]) if found else "the job was ended by another"

        return self._do(note)

    def end(self, job: Job, state: State, reason: str = "", result: str = "") -> bool:
        """A running job ends. Only who holds it can end it, and once: returns whether this was it."""
        return self._write(
            lambda connection: (
                connection.execute(
                    "UPDATE jobs SET state = ?, reason = ?, result = ?, finished = ? "
                    "WHERE id = ? AND state = 'running' AND worker = ?",
                    (state, reason, result, time.time(), job.id, job.worker),
                ).rowcount
                == 1
            )
        )

    def stop(self, id: str, reason: str) -> Job | None:
        """End a job: at once while it waits, at its next step while it runs. Returns it, None where there is none."""

        def ask(connection: sqlite3.Connection) -> Job | None:
            connection.execute(
                "UPDATE jobs SET state = 'stopped', reason = ?, finished = ? WHERE id = ? AND state = 'waiting'",
                (reason, time.time(), id),
            )
            connection.execute("UPDATE jobs SET stop = ? WHERE id = ? AND state = 'running' AND stop = ''", (reason, id))
            return next(iter(_select(connection, "WHERE id = ?", (id,))), None)

        return self._write(ask)

    def fail_first(self, reason: str) -> None:
        """The first job that waits fails: no worker could be started for it."""
        self._write(
            lambda connection: connection.execute(
                "UPDATE jobs SET state = 'failed', reason = ?, finished = ? "
                "WHERE number = (SELECT MIN(number) FROM jobs WHERE state = 'waiting')",
                (reason, time.time()),
            )
        )

    def get(self, id: str) -> Job | None:
        """The job of this id."""
        return next(iter(self._do(lambda connection: _select(connection, "WHERE id = ?", (id,)))), None)

    def newest(self, limit: int, state: State | None = None) -> list[Job]:
        """The newest so many jobs, the newest first."""
        where = "WHERE state = ?" if state else ""
        values = (state, limit) if state else (limit,)
        return self._do(lambda connection: _select(connection, f"{where} ORDER BY number DESC LIMIT ?", values))

    def active(self) -> list[Job]:
        """Those that run or wait, in their order."""
        return self._do(lambda connection: _select(connection, "WHERE state IN ('waiting', 'running') ORDER BY number", ()))

    def look(self, version: int) -> tuple[list[Job], list[Job]]:
        """(the active jobs, in their order; those that changed after `version`), seen at one moment."""

        def read(connection: sqlite3.Connection) -> tuple[list[Job], list[Job]]:
            connection.execute("BEGIN")
            active = _select(connection, "WHERE state IN ('waiting', 'running') ORDER BY number", ())
            return active, _select(connection, "WHERE version > ? ORDER BY version", (version,))

        return self._do(read)

    def last_version(self) -> int:
        """The version of the newest change; 0 where there was none."""
        return int(self._do(lambda connection: connection.execute("SELECT COALESCE(MAX(version), 0) FROM jobs").fetchone()[0]))

    def last_taken(self) -> int:
        """The number of the newest job that was ever taken by a worker; 0 where none was."""
        query = "SELECT COALESCE(MAX(number), 0) FROM jobs WHERE worker <> ''"
        return int(self._do(lambda connection: connection.execute(query).fetchone()[0]))

    def rate(self) -> float | None:
        """Seconds for a unit of work, by the newest done jobs; None before the first."""
        query = (
            "SELECT SUM(finished - started), SUM(work) FROM (SELECT * FROM jobs WHERE state = 'done' "
            "AND json_extract(result, '$.made_before') = 0 ORDER BY finished DESC LIMIT ?)"
        )
        seconds, work = self._do(lambda connection: connection.execute(query, (RATED_JOBS,)).fetchone())
        return seconds / work if seconds and work else None


JobState = State
QueueFull = Full


class Jobs(JobQueue):
    """The queue, by the names that are to come."""

    def __init__(self, database: Database) -> None:
        database.file.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(database.file.parent)

    def note(self, id: str, stage: str, step: int, steps: int | None, stage_started: float) -> Job | None:
        self.tell(id, stage, step, steps, stage_started)
        return self.get(id)

    def add_clip(self, params: ClipParams, limit: int | None = None) -> Job:
        return self.add(params, 10**9 if limit is None else limit)

    def newest(self, limit: int, state: State | None = None, kind: str | None = None) -> list[Job]:
        return super().newest(limit, state)


def _select(connection: sqlite3.Connection, where: str, values: Sequence[Any]) -> list[Job]:
    return [Job(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values)]  # noqa: S608


def work_of(params: ClipParams) -> float:
    """How much there is to compute: pixels x frames x steps."""
    return float(params.height * params.width * params.num_frames * (params.num_inference_steps + FIXED_STEPS))


def forecast(active: Sequence[Job], rate: float | None, now: float) -> dict[str, float | None]:
    """Seconds until each of the active jobs, in their order, is done; None where nothing is known yet."""
    found: dict[str, float | None] = {}
    before: float | None = 0.0
    for job in active:
        left = _alone(job, rate, now)
        before = None if before is None or left is None else before + left
        found[job.id] = before
    return found


def _alone(job: Job, rate: float | None, now: float) -> float | None:
    """Seconds that a job still takes once it is its turn."""
    if job.state == "running" and job.stage == "denoise" and job.steps and job.step and job.stage_started:
        return (now - job.stage_started) / job.step * (job.steps - job.step)
    if rate is None:
        return None
    whole = rate * job.work
    return max(0.0, whole - (now - job.started)) if job.started else whole


def result_of(record: RunRecord, job_id: str) -> str:
    """The `result` of a job whose run is this one."""
    peak = record.peak_vram_reserved_gib or record.peak_ram_gib
    return json.dumps({
        "run": record.id, "clip": record.clip, "seconds": record.seconds.get("total", 0.0), "peak_gib": peak,
        "file_bytes": record.file_bytes, "frames_sha256": record.frames_sha256, "made_before": record.id != job_id,
    })  # fmt: skip


def own_name() -> str:
    """This process, as no other is called: host, number, and when it began, since numbers come again."""
    import psutil

    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time()}"


def lives(worker: str) -> bool:
    """Whether the process of this name is still there; one of another host is taken to be."""
    import psutil

    host, _, rest = worker.partition(":")
    pid, _, began = rest.partition(":")
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        return abs(process.create_time() - float(began)) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError):
        return False
