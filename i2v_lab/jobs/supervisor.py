"""The server's side of the queue: keeps a worker while there is work, settles the jobs of one that died, and tells all who
listen where each job stands.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import I2VLabError
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Job, JobQueue, State, forecast, lives, result_of

log = logging.getLogger(__name__)

BUSY_SECONDS, QUIET_SECONDS = 0.1, 1.0  # between two looks at the queue, while there are jobs and while there are none
SETTLE_SECONDS = 2.0  # between two looks whether workers of other servers live
REMEMBERED = 2000  # ended jobs whose last state is told without asking the file
STARTS_MAX = 3  # workers in a row that end before they take a job
KILL_SECONDS = 15.0  # how long a worker may take to end once its clip was stopped
DIED = "the worker's process ended before the clip was done (killed, or out of memory)"


class Standing:
    """Where a job stands: the job, its place in the queue and the seconds left, as they were at the last look."""

    def __init__(self, job: Job, place: int | None = None, seconds_left: float | None = None) -> None:
        self.job, self.place, self.seconds_left = job, place, seconds_left


class Supervisor:
    """Keeps the worker and knows the standings. `look` and what it calls run in a thread; the rest in the event loop."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings, self.store = settings, store
        self.queue = JobQueue(store.directory)
        self.worker: subprocess.Popen[bytes] | None = None
        self._taken = 0  # the newest job that was taken when the worker was started
        self.waiting = 0
        self._standings: OrderedDict[str, Standing] = OrderedDict()
        self._version = self.queue.last_version()
        self._rate = self.queue.rate()
        self._settled = 0.0
        self._idle_starts, self._not_before = 0, 0.0
        self._pulse, self._wake = asyncio.Event(), asyncio.Event()
        self._closing = False
        self._looking = threading.Lock()

    # In the event loop

    async def run(self) -> None:
        """Look at the queue for as long as the server runs."""
        while not self._closing:
            try:
                busy = await asyncio.to_thread(self.look)
            except Exception:
                log.exception("the queue could not be looked at")
                busy = False
            pulse, self._pulse = self._pulse, asyncio.Event()
            pulse.set()
            if not busy:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), QUIET_SECONDS)
            else:
                await asyncio.sleep(BUSY_SECONDS)
            self._wake.clear()

    def wake(self) -> None:
        """A job came: look now, and tell the worker to."""
        self._wake.set()
        worker = self.worker  # a thread may end it meanwhile, and close its pipe
        if worker and worker.stdin:
            with suppress(OSError, ValueError):
                worker.stdin.write(b"\n")

    async def standing(self, id: str) -> Standing | None:
        """Where a job stands now; None where there is none of this id."""
        if known := self._standings.get(id):
            return known
        job = await asyncio.to_thread(self.queue.get, id)
        if job is None or job.ended:
            return Standing(job) if job else None
        await self.refresh()
        return self._standings.get(id, Standing(job))

    async def refresh(self) -> None:
        """Look now: a job came or was stopped."""
        await asyncio.to_thread(self.look)

    async def follow(self, id: str, every: float) -> AsyncIterator[Standing | None]:
        """The standings of a job as they change, until it ends; None every so many seconds without a change."""
        shown = None
        quiet_since = time.monotonic()
        while True:
            pulse = self._pulse  # before looking, so that no change falls between
            now = await self.standing(id)
            if now is None:
                return
            seen = (now.job.version, now.place)
            if seen != shown:
                shown, quiet_since = seen, time.monotonic()
                yield now
            if now.job.ended:
                return
            left = quiet_since + every - time.monotonic()
            if left <= 0:
                quiet_since = time.monotonic()
                yield None
                continue
            with suppress(TimeoutError):
                await asyncio.wait_for(pulse.wait(), left)

    # In a thread

    def look(self) -> bool:
        """Tend the worker and read the standings again. Returns whether there are jobs."""
        with self._looking:
            return self._look()

    def _look(self) -> bool:
        if not self._closing:
            self._tend()
        active, changed = self.queue.look(self._version)
        now = time.time()
        left = forecast(active, self._rate, now)
        ended = [job for job in changed if job.ended]
        for job in ended:
            self._standings[job.id] = Standing(job)
            self._standings.move_to_end(job.id)
        place = 0
        for job in active:
            place += job.state == "waiting"
            self._standings[job.id] = Standing(job, place if job.state == "waiting" else 0, left[job.id])
        self.waiting = place
        while len(self._standings) > REMEMBERED + len(active):
            self._standings.popitem(last=False)
        if changed:
            self._version = changed[-1].version
        if ended:
            self._rate = self.queue.rate()
        return bool(active)

    def _tend(self) -> None:
        if self.worker and self.worker.poll() is not None:
            self._worker_ended(self.worker.returncode)
        if time.monotonic() - self._settled > SETTLE_SECONDS:
            self.settle()
        if (
            self.worker is None
            and time.monotonic() >= self._not_before
            and any(job.state == "waiting" for job in self.queue.active())
        ):
            self._start()

    def _start(self) -> None:
        # A session of its own: Ctrl-C in the terminal is for the server alone.
        self.worker = subprocess.Popen(
            [sys.executable, "-m", "i2v_lab.jobs.worker"], stdin=subprocess.PIPE, bufsize=0, start_new_session=True
        )
        assert self.worker.stdin  # noqa: S101 - a pipe
        os.set_blocking(self.worker.stdin.fileno(), False)  # a full pipe wakes as well, and must not hold up the event loop
        log.info("worker %d started", self.worker.pid)
        self._taken = self.queue.last_taken()

    def _worker_ended(self, code: int) -> None:
        assert self.worker  # noqa: S101 - asked by the caller
        log.log(logging.INFO if code == 0 else logging.ERROR, "worker %d ended with %d", self.worker.pid, code)
        if self.worker.stdin:
            self.worker.stdin.close()
        self.worker = None
        self.settle()
        if code == 0 or self.queue.last_taken() != self._taken:
            self._idle_starts = 0
            return
        self._idle_starts += 1
        self._not_before = time.monotonic() + self._idle_starts
        if self._idle_starts >= STARTS_MAX:
            self._idle_starts = 0
            self.queue.fail_first("the worker's process ends before it takes a clip; the log has the details")

    def settle(self) -> None:
        """End the jobs whose worker died: done where the run was, otherwise failed with a reason."""
        self._settled = time.monotonic()
        dead = [job for job in self.queue.active() if job.state == "running" and not lives(job.worker)]
        if not dead:
            return
        self.store.mark_dead()
        for job in dead:
            record = self.store.get(job.id)
            if record and record.status == "done":
                self.queue.end(job, "done", result=result_of(record, job.id))
            else:
                self.queue.end(job, *_how_it_ended(record))
            log.error("job %s was left by worker %s", job.id, job.worker)

    def close(self) -> None:
        """End the worker: its clip may be finished within `stop_seconds`, then it is recorded as stopped. Waits for that."""
        self._closing = True
        worker = self.worker
        if worker is None:
            return
        if worker.stdin:
            worker.stdin.close()  # it takes no other job
        for seconds, and_then in ((self.settings.server.stop_seconds, worker.terminate), (KILL_SECONDS, worker.kill), (10, None)):
            try:
                worker.wait(seconds)
                break
            except subprocess.TimeoutExpired:
                if and_then:
                    and_then()
        with suppress(I2VLabError):
            self.settle()


def _how_it_ended(record: RunRecord | None) -> tuple[State, str]:
    status: Any = record.status if record else ""
    return (status, record.reason) if record and status in ("out_of_memory", "stopped") else ("failed", DIED)
