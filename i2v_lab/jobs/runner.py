"""The job runner: keeps a worker process while there is work, settles the jobs of workers that died, and reports changes."""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import I2VLabError
from i2v_lab.jobs import crew
from i2v_lab.jobs.crew import Post, SharedTurn, WorkerStatus, devices_of_workers
from i2v_lab.settings import ENV_PREFIX, Settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Job, Jobs, JobState, StopAfter, forecast, result_of
from i2v_lab.store.processes import lives, may_take, own_name, pid_of

log = logging.getLogger(__name__)

BUSY_SECONDS, QUIET_SECONDS = 0.2, 1.0  # between two looks at the queue, while there are jobs and while there are none
RECORD_SECONDS = 2.0  # between two looks whether anything was recorded
SETTLE_SECONDS = 2.0  # between two looks whether the workers of others live
WATCH_SECONDS = 3.0  # for so long a look at previews counts
STARTS_MAX = 3  # workers in a row that end before they take a job
DIED = "the worker's process ended before the clip was done (killed, or out of memory)"


@dataclass(frozen=True)
class JobStatus:
    """A job at the last look.

    Attributes:
        place: 0 runs, 1 is next; None has ended.
        seconds_left: until it is done; None where that is not known.
    """

    job: Job
    place: int | None = None
    seconds_left: float | None = None


class JobRunner:
    """Runs the jobs of an output folder in worker processes. Several runners, in several processes, may share a folder.

    Attributes:
        jobs: the queue.
        active: the status of each job that runs or waits, in their order, at the last look.
        last: the clip of this process's jobs that ended last; None before the first.
        waiting: how many jobs wait.
        recorded: grows when the database may have changed, by anybody; looked at once in two seconds.
        posts: the workers' places, and their processes while there are some.
    """

    def __init__(self, store: Store, settings: Settings, *, stop_with_process: bool = False) -> None:
        """
        Args:
            settings: of the worker.
            stop_with_process: a worker stops its clip when this process ends. Otherwise it may finish it.

        Raises:
            SettingsError: there are fewer devices than workers.
        """
        self.store, self.settings, self.stop_with_process = store, settings, stop_with_process
        self.jobs = Jobs(store.database, settings)
        self._process = own_name()
        self.posts = [Post(number, device) for number, device in enumerate(devices_of_workers(settings), 1)]
        shared = len(self.posts) > 1 and self.posts[0].device == "cpu"
        self.turn = SharedTurn(self.posts) if shared else None
        self.active: list[JobStatus] = []
        self.last: Job | None = None
        self.waiting = 0
        self.closed = False
        self._listeners: dict[Callable[[], None], bool] = {}
        self._version, self._rate = self.jobs.last_version(), self.jobs.rate()
        self._settled = self._watched = self._not_before = 0.0
        self._failed_starts = 0
        self._restored: set[str] = set()  # jobs that were entered again after the database was lost
        self._changed = False
        self.recorded, self._stamp, self._stamped = 0, self.store.database.stamp(), 0.0
        self._awake, self._looking = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, name="job runner", daemon=True)

    def start(self) -> None:
        """Begin to look at the queue, in a thread."""
        self._thread.start()

    def prepare(self) -> None:
        """Start a worker before there is a job: meanwhile it loads what the first clip needs. Not where another's makes the jobs."""
        with self._looking:
            if not any(post.process for post in self.posts) and not self.closed and may_take(self.jobs.owner, self._process):
                self._start(self.posts[0])

    def close(self) -> None:
        """End the workers: their clips may be finished within `stop_seconds`, then they are recorded as stopped. Waits for that."""
        self.closed = True
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join()
        if not any(post.process for post in self.posts):
            return
        crew.end(self.posts, self.settings.server.stop_seconds)
        if self.turn:
            self.turn.close()
        with suppress(I2VLabError):
            self._settle()

    def wake(self) -> None:
        """A job was added or should stop: look now, and let the workers look."""
        self._awake.set()
        for post in self.posts:
            post.tell(crew.LOOK)

    def stop(self, id: str, reason: str, after: StopAfter = "step") -> Job | None:
        """End a job, as `Jobs.stop`; the worker hears of it within a step."""
        job = self.jobs.stop(id, reason, after)
        self.wake()
        return job

    def listen(self, call: Callable[[], None], *, previews: bool = False) -> None:
        """Call this, from the runner's thread, after each look that saw a change.

        Args:
            previews: whether it shows previews. They are made only where somebody looks.
        """
        self._listeners[call] = previews

    def ignore(self, call: Callable[[], None]) -> None:
        """Call this no more."""
        self._listeners.pop(call, None)

    def status(self, id: str) -> JobStatus | None:
        """The status of a job now; None where there is none of this id."""
        found = self._active(id)
        if found is None and (job := self.jobs.get(id)):
            if not job.ended:
                self.refresh()
            found = self._active(id) or JobStatus(self.jobs.get(id) or job)
        return found

    def _active(self, id: str) -> JobStatus | None:
        return next((status for status in self.active if status.job.id == id), None)

    def workers(self) -> list[WorkerStatus]:
        """Each worker, and the job that it makes, at the last look."""
        made = {pid_of(status.job.worker): status.job for status in self.active if status.job.state == "running"}
        line = self.turn.line if self.turn and self.waiting else ""
        found = []
        for post in self.posts:
            pid = post.process.pid if post.process else None
            job = made.get(pid) if pid else None
            said = json.loads(job.status or "{}") if job else {}
            note = str(said.get("note", "")) if job else line if pid else ""
            state: Literal["off", "idle", "waits", "works"] = (
                "off" if pid is None else "waits" if note else "works" if job else "idle"
            )
            found.append(WorkerStatus(post.number, post.device, pid, state, note, job, str(said.get("where", ""))))
        return found

    def refresh(self) -> bool:
        """Look at the queue now. Returns whether there are jobs."""
        with self._looking:
            return self._look()

    def _run(self) -> None:
        fault = ""
        while not self.closed:
            try:
                busy, fault = self.refresh(), ""
                if self.turn:
                    self.turn.keep(wanted=self._has_work())
            except Exception as error:
                if str(error) != fault:  # once, not each second
                    log.exception("the queue could not be looked at")
                busy, fault = False, str(error)
            if self._changed:
                self._changed = False
                self._report()
            self._awake.wait(BUSY_SECONDS if busy else QUIET_SECONDS)
            self._awake.clear()

    def _report(self) -> None:
        for call in list(self._listeners):
            try:
                call()
            except Exception:  # a screen that fails is no reason for a clip to fail
                log.exception("a listener could not show a change of the queue")

    def _look(self) -> bool:
        if not self.closed:
            self._keep_worker()
        active, changed = self.jobs.look(self._version)
        seen = {job.id for job in (*active, *changed)}
        if lost := [status.job for status in self.active if status.job.id not in seen]:
            log.warning("the database was lost: %d jobs are entered again", len(lost))
            self.jobs.restore(lost)
            self._restored |= {job.id for job in lost}
            active, changed = self.jobs.look(0)
        left = forecast(active, self._rate, time.time(), len(self.posts))
        ended = [job for job in changed if job.ended]
        for job in ended:
            if job.kind == "clip" and job.started and job.owner == self.jobs.owner:
                self.last = job
        waiting = 0
        found = []
        for job in active:
            waiting += job.state == "waiting"
            found.append(JobStatus(job, waiting if job.state == "waiting" else 0, left[job.id]))
        self.active, self.waiting = found, waiting
        if changed:
            self._version, self._changed = changed[-1].version, True
        if ended:
            self._rate = self.jobs.rate()
        self._look_at_record(bool(ended))
        if len(active) > waiting and any(list(self._listeners.values())) and time.monotonic() - self._watched > WATCH_SECONDS / 3:
            self._watched = time.monotonic()
            self.jobs.watch(time.time() + WATCH_SECONDS)
        return bool(active)

    def _look_at_record(self, now: bool) -> None:
        """Whether somebody, in any process, recorded something."""
        if now or time.monotonic() - self._stamped >= RECORD_SECONDS:
            self._stamped = time.monotonic()
            if (stamp := self.store.database.stamp()) != self._stamp or now:
                self._stamp, self._changed = stamp, True
                self.recorded += 1

    # The workers

    def _keep_worker(self) -> None:
        """Start a worker where more jobs wait than there are workers for; settle what workers that died have left."""
        for post in self.posts:
            if (code := post.ended()) is not None:
                self._worker_ended(post, code)
        if time.monotonic() - self._settled > SETTLE_SECONDS:
            self._settle()
        free = [post for post in self.posts if post.process is None]
        if free and time.monotonic() >= self._not_before and (waiting := self._takeable()):
            at_work = sum(self._is_own(job) for job in self.jobs.active())
            if len(self.posts) - len(free) < len(waiting) + at_work:
                self._start(free[0])

    def _takeable(self) -> list[Job]:
        """The waiting jobs that a worker of this runner may take."""
        active = self.jobs.active()
        return [job for job in active if job.state == "waiting" and may_take(job.owner, self._process)]

    def _is_own(self, job: Job) -> bool:
        """Whether a worker of this runner makes a job."""
        return job.state == "running" and pid_of(job.worker) in {post.process.pid for post in self.posts if post.process}

    def _has_work(self) -> bool:
        return any(self._is_own(status.job) for status in self.active) or bool(self._takeable())

    def _start(self, post: Post) -> None:
        post.start(
            self.settings, environment(self.settings), self.jobs.last_taken(), alone=len(self.posts) == 1,
            stop_with_process=self.stop_with_process,
        )  # fmt: skip
        if self.turn and self.turn.is_ours:
            post.tell(crew.TURN_IS_OURS)

    def _worker_ended(self, post: Post, code: int) -> None:
        self._settle()
        if code == 0 or self.jobs.last_taken() != post.taken:
            self._failed_starts = 0
            return
        self._failed_starts += 1
        self._not_before = time.monotonic() + self._failed_starts
        if self._failed_starts >= STARTS_MAX:
            self._failed_starts = 0
            if waiting := self._takeable():
                self.jobs.fail(waiting[0].id, "the worker's process ends before it takes a clip; the log has the details")

    def _is_left(self, job: Job) -> bool:
        """Whether nobody makes a running job: its worker is gone, or had ended it just before the database was lost."""
        record = self.store.get(job.id) if job.id in self._restored else None
        return not lives(job.worker) or (record is not None and record.status != "running")

    def _settle(self) -> None:
        """End the jobs whose worker died: done where the run was, otherwise failed with a reason."""
        self._settled = time.monotonic()
        dead = [job for job in self.jobs.active() if job.state == "running" and self._is_left(job)]
        if not dead:
            return
        self.store.mark_dead()
        for job in dead:
            record = self.store.get(job.id)
            if record and record.status == "done":
                self.jobs.end(job, "done", result=result_of(record, job.id))
            else:
                self.jobs.end(job, *_how_it_ended(record))
            log.error("job %s was left by worker %s", job.id, job.worker)


def _how_it_ended(record: RunRecord | None) -> tuple[JobState, str]:
    if record and record.status in ("out_of_memory", "stopped"):
        return record.status, record.reason
    return "failed", DIED


def environment(settings: Settings) -> dict[str, str]:
    """The settings as variables of the environment, with absolute folders: for a process that has another current folder."""
    found = {}
    for group, value in settings.model_dump(mode="json").items():
        for name, inner in value.items() if isinstance(value, dict) else [("", value)]:
            if inner != "" and name != "token":
                text = str(Path(inner).absolute()) if name == "directory" else str(inner)
                found[ENV_PREFIX + group.upper() + (f"__{name.upper()}" if name else "")] = text
    return found


_shared: dict[tuple[int, Path], JobRunner] = {}


def shared_runner(store: Store, settings: Settings) -> JobRunner:
    """The runner of this process for an output folder, started; its worker stops when the process ends."""
    key = (os.getpid(), store.directory)  # a fork has no thread of its parent
    if key not in _shared or _shared[key].closed:
        _shared[key] = JobRunner(store, settings, stop_with_process=True)
        _shared[key].start()
        atexit.register(_shared[key].close)
    return _shared[key]
