"""What the calls of the API share: settings, store, job runner, and what a clip will take."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import anyio
import anyio.to_process
from fastapi import Path as PathParam
from starlette.concurrency import run_in_threadpool

from i2v_lab.clip.params import ClipParams
from i2v_lab.jobs import JobRunner, JobStatus
from i2v_lab.server.body import ApiError, shown_params, to_params, without_paths
from i2v_lab.server.plans import work_out
from i2v_lab.server.schemas import ID_PATTERN, JobAnswer
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Job, QueueFull, job_of

T = TypeVar("T")
RETRY_SECONDS = 10  # where nothing is known of how long a clip takes
PICTURES_AT_ONCE = 2  # decoded; one may take 270 MB


class ApiState:
    """What the calls of the API share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.output.directory)
        self.runner = JobRunner(self.store, settings)
        self.pictures = anyio.CapacityLimiter(PICTURES_AT_ONCE)
        self.plans = anyio.CapacityLimiter(1)

    async def with_picture(self, call: Callable[[], T]) -> T:
        """The result of a call that decodes a picture; it runs in a thread, few at a time."""
        return await anyio.to_thread.run_sync(call, limiter=self.pictures)

    async def check_room(self) -> None:
        """Answer 429 where the queue is full: before a picture is decoded, which takes longer than all else."""
        limit = self.settings.server.queue_limit
        if self.runner.waiting >= limit and await run_in_threadpool(self.runner.refresh) and self.runner.waiting >= limit:
            raise self._full()

    async def ask_for(self, values: Mapping[str, Any]) -> Job:
        """Put the clip of a checked request into the queue, with nothing left open; see `to_params` and `submit`."""
        params = await self.with_picture(lambda: to_params(values, self.settings.server))
        return await run_in_threadpool(self.submit, params)

    def submit(self, params: ClipParams) -> Job:
        """Put a clip into the queue, or answer 429."""
        try:
            job = self.runner.jobs.add_clip(params, self.settings.server.queue_limit)
        except QueueFull:
            raise self._full() from None
        self.runner.wake()
        if self.runner.status(job.id) is None:  # the database was lost at this very moment
            self.runner.jobs.restore([job])
        return job

    def _full(self) -> ApiError:
        first = next((status.seconds_left for status in self.runner.active), None)
        wait = str(RETRY_SECONDS if first is None else min(max(1, math.ceil(first)), 3600))
        message = f"the queue is full ({self.settings.server.queue_limit} clips wait); try again in {wait} s"
        return ApiError(429, "queue", message, {"Retry-After": wait})

    def find(self, id: Annotated[str, PathParam(json_schema_extra={"pattern": ID_PATTERN})]) -> JobStatus:
        """The status of a clip's job, or 404."""
        found = self.runner.status(id)
        if found is None and (record := self.store.get(id)) and record.status == "done":
            found = JobStatus(job_of(record))
        if found is None or found.job.kind != "clip":
            raise ApiError(404, "id", "there is no such clip")
        return found

    async def follow(self, id: str) -> AsyncIterator[JobStatus]:
        """The status of a job each time that it changes, until the job has ended."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def report() -> None:
            loop.call_soon_threadsafe(changed.set)

        self.runner.listen(report)
        try:
            shown = None
            while True:
                now = await run_in_threadpool(self.find, id)
                if shown != (now.job.version, now.place):
                    shown = (now.job.version, now.place)
                    yield now
                if now.job.ended:
                    return
                await changed.wait()
                changed.clear()
        finally:
            self.runner.ignore(report)

    async def plan(self, params: ClipParams) -> dict[str, Any]:
        """What a clip would take. It is computed in a process of its own: here it would hold up all other answers."""
        asked = params.plain(), self.settings.device, self.settings.parallel, self.store.directory
        try:
            return await anyio.to_process.run_sync(work_out, *asked, cancellable=True, limiter=self.plans)
        except anyio.BrokenWorkerProcess:  # killed: the next call starts another
            raise ApiError(422, "resolution", "the plan took more memory than there is; ask for a smaller clip") from None


def job_answer(status: JobStatus, prefix: str) -> JobAnswer:
    """A job as the API answers it.

    Args:
        prefix: of the server's paths; "" where it is at the root of its address.
    """
    job, left = status.job, status.seconds_left
    url = f"{prefix}/api/clips/{job.id}/clip.mp4"
    return JobAnswer.model_validate(asdict(job) | {
        "worker": json.loads(job.status or "{}").get("where") or ":".join(job.worker.split(":")[:2]), "reason": without_paths(job.reason),
        "place": status.place, "seconds_left": None if left is None else round(left, 1),
        "params": shown_params(job.params), "result": json.loads(job.result) | {"url": url} if job.result else None,
    })  # fmt: skip
