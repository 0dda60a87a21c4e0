"""Wait for another process, and hold it at a point: on any machine, what it does is still going on."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil

from i2v_lab.store.jobs import Job, Jobs


def suspend(process: psutil.Process, database: Path) -> None:
    """Suspend a process where it is not writing into the database: otherwise nobody else could write."""
    while True:
        process.suspend()
        while process.status() != psutil.STATUS_STOPPED:
            pass
        with closing(sqlite3.connect(database, timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                process.resume()


def until(happened: Callable[[], object], seconds: float = 60) -> None:
    """Wait for another process or thread; an end to a test that would hang."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@contextmanager
def held(jobs: Jobs, job: Job) -> Iterator[psutil.Process]:
    """While the worker of a job is suspended at a step, not before its third."""

    def begun() -> bool:
        now = jobs.get(job.id)
        return bool(now and now.stage == "denoise" and now.step > 2)

    until(begun)
    worker = psutil.Process(int(jobs.get(job.id).worker.split(":")[1]))  # type: ignore[union-attr]
    suspend(worker, jobs.database.file)
    try:
        yield worker
    finally:
        with suppress(psutil.NoSuchProcess):
            worker.resume()
