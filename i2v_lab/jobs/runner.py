"""The job runner: the supervisor's looks in a thread of their own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

from i2v_lab.jobs.supervisor import BUSY_SECONDS, DIED, QUIET_SECONDS, Standing, Supervisor
from i2v_lab.settings import ENV_PREFIX, Settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Jobs

__all__ = ["DIED", "JobRunner", "JobStatus", "environment"]

log = logging.getLogger(__name__)
JobStatus = Standing


class JobRunner:
    """Keeps a worker while there is work, and knows the status of each job."""

    def __init__(self, store: Store, settings: Settings) -> None:
        store.directory.mkdir(parents=True, exist_ok=True)
        self._supervisor = Supervisor(settings, store)
        self._supervisor.queue = self.jobs = Jobs(store.database)
        self._listeners: list[Callable[[], None]] = []
        self._closed, self._awake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def waiting(self) -> int:
        return self._supervisor.waiting

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._awake.set()
        self._thread.join()
        self._supervisor.close()

    def wake(self) -> None:
        self._awake.set()
        worker = self._supervisor.worker
        if worker and worker.stdin:
            with suppress(OSError, ValueError):
                worker.stdin.write(b"\n")

    def refresh(self) -> bool:
        return self._supervisor.look()

    def status(self, id: str) -> JobStatus | None:
        if known := self._supervisor._standings.get(id):
            return known
        job = self.jobs.get(id)
        if job is None or job.ended:
            return JobStatus(job) if job else None
        self.refresh()
        return self._supervisor._standings.get(id, JobStatus(job))

    def listen(self, call: Callable[[], None]) -> None:
        self._listeners.append(call)

    def ignore(self, call: Callable[[], None]) -> None:
        with suppress(ValueError):
            self._listeners.remove(call)

    def _run(self) -> None:
        version = -1
        while not self._closed.is_set():
            busy = False
            try:
                busy = self.refresh()
            except Exception:
                log.exception("the queue could not be looked at")
            if version != self._supervisor._version:
                version = self._supervisor._version
                for call in list(self._listeners):
                    call()
            self._awake.wait(BUSY_SECONDS if busy else QUIET_SECONDS)
            self._awake.clear()


def environment(settings: Settings) -> Mapping[str, str]:
    """The settings as variables of the environment, for the API, the worker and notebooks, whose current folders differ."""
    found = {}
    for group, value in settings.model_dump(mode="json").items():
        if group == "server":
            value = {name: inner for name, inner in value.items() if name != "token"}  # noqa: PLW2901
        for name, inner in value.items() if isinstance(value, dict) else [("", value)]:
            if inner != "":
                found[ENV_PREFIX + group.upper() + (f"__{name.upper()}" if name else "")] = str(inner)
    return found
