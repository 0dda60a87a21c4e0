"""Where a job is: noted in the queue for all screens, and ended there when it should stop."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from PIL import Image

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Preview
from i2v_lab.cluster import WorkerState
from i2v_lab.errors import Stop
from i2v_lab.store.jobs import Job, Jobs
from i2v_lab.sweep import SweepProgress, SweepStatus

log = logging.getLogger(__name__)
NOTE_SECONDS = 0.2  # between two notes of where a job is
PREVIEW_SECONDS = 0.7  # between two previews
PREVIEW_SHARE = 20  # and at least this many times what the last one took: previews must not slow the clip down
WAIT = "wait"  # the stage of a clip while another process has the device
REPORT = "report"  # the stage of a sweep whose clips are made
HAS_ENDED = "the job was ended by another process"


class JobProgress(SweepProgress):
    """Notes in the queue where a job is, and ends it when it should stop."""

    def __init__(self, jobs: Jobs, job: Job, heard: Callable[[], bool]) -> None:
        """
        Args:
            heard: whether a byte came from the runner.
        """
        self.jobs, self.job, self.heard = jobs, job, heard
        self.name, self.at, self.total, self.began = "", 0, None, time.time()  # type: str, int, int | None, float
        self.status: dict[str, Any] = {}
        self.stop_reason = ""
        self._noted = 0.0

    def _note(self) -> None:
        self._noted = time.monotonic()
        for _ in range(2):
            if job := self.jobs.note(self.job.id, self.name, self.at, self.total, self.began, json.dumps(self.status)):
                self.job = job
                return
            self.jobs.restore([self.job])  # where the database was lost
        raise Stop(self.stop_reason or HAS_ENDED)

    def _is_due(self) -> bool:
        return time.monotonic() - self._noted >= NOTE_SECONDS or self.heard()


class ClipProgress(JobProgress):
    """Of a clip: its stages and steps, and previews while somebody looks."""

    def __init__(self, jobs: Jobs, job: Job, heard: Callable[[], bool]) -> None:
        super().__init__(jobs, job, heard)
        self.status = {**_noted(""), "stages": {}, "previews": 0}
        self.fps = float(ClipParams.model_validate_json(job.params).fps)
        self._next_preview = 0.0
        self._newest: Preview | None = None  # which was not rendered: too soon after another

    def stage(self, name: str, total: int | None = None) -> None:
        if self._newest and time.time() < self.job.watched:  # decoding may take long: show the last of what is decoded
            self._keep(self._newest)
        self._newest = None
        if self.name and self.name != WAIT:
            stages = self.status["stages"]
            stages[self.name] = stages.get(self.name, 0.0) + time.time() - self.began
        self.name, self.at, self.total, self.began = name, 0, total, time.time()
        self.status |= _noted("")
        self._note_and_stop()

    def step(self, preview: Preview | None = None) -> None:
        self.at += 1
        self._newest = preview or self._newest
        if preview and time.time() < self.job.watched and time.monotonic() >= self._next_preview:
            self._keep(preview)
            self._newest = None
        if self.stop_reason or self._is_due():
            self._note_and_stop()

    def pulse(self) -> None:
        if self.stop_reason or self._is_due():
            self._note_and_stop()

    def waiting(self, line: str) -> None:
        """Another process has the device."""
        if self.name != WAIT:
            log.info("job %s: %s", self.job.id, line)
            self.name, self.began = WAIT, time.time()
        self.status |= _noted(line)
        if self._is_due():
            self._note_and_stop()

    def made_at(self, host: str, pid: int) -> None:
        """Another process makes it, or made it."""
        if (where := f"{host}:{pid}") != self.status.get("where"):
            self.status["where"] = where
            self._note()

    def elsewhere(self, worker: WorkerState) -> None:
        """How far a worker of a cluster is with it."""
        self.made_at(worker.host, worker.pid)
        if worker.stage and worker.stage != self.name:
            self.stage(worker.stage, worker.steps)
        self.at = worker.step
        self.status |= _noted(worker.note)  # what it waits for, or that it does not answer
        self.pulse()

    def _note_and_stop(self) -> None:
        self._note()
        if reason := self.stop_reason or self.job.stop:
            raise Stop(reason)

    def _keep(self, preview: Preview) -> None:
        began = time.monotonic()
        try:
            self.jobs.keep_preview(self.job.id, moving_webp(preview(), self.fps))
            self.status["previews"] += 1
        except Exception:  # a preview that fails is no reason for the clip to fail
            log.exception("no preview of job %s", self.job.id)
        now = time.monotonic()
        self._next_preview = now + max(PREVIEW_SECONDS, PREVIEW_SHARE * (now - began))


class SweepJobProgress(JobProgress):
    """Of a sweep: how far it is."""

    def cell(self, status: SweepStatus) -> None:
        self._show(status)
        self._stop_after("cell", "step")

    def updated(self, status: SweepStatus) -> None:
        if status.over:
            with suppress(Stop):
                self._show(status)
        elif self.stop_reason or (status.stage, status.note) != (self.name, self.status.get("note")) or self._is_due():
            self._show(status)
            self._stop_after("step")

    def reporting(self) -> None:
        """The clips are made, and the report is being made."""
        self.name, self.at, self.total = REPORT, 0, None
        self._note()
        if self.stop_reason or (self.job.stop and self.job.stop_after == "step"):
            raise Stop(self.stop_reason or self.job.stop)

    def _show(self, status: SweepStatus) -> None:
        self.name, self.at, self.total = status.stage, status.step, status.steps
        self.status = {**asdict(status), **_noted(status.note)}
        self._note()

    def _stop_after(self, *wanted: str) -> None:
        if self.stop_reason or (self.job.stop and self.job.stop_after in wanted):
            raise Stop(self.stop_reason or self.job.stop)


def _noted(line: str) -> dict[str, Any]:
    """A line for the status, with its code where it has one."""
    return {"note": line, "code": getattr(line, "code", ""), "values": dict(getattr(line, "values", {}))}


def moving_webp(frames: Any, fps: float) -> bytes:
    """A preview, uint8 RGB (F, h, w, 3), as a looping WebP."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    out = io.BytesIO()
    first.save(out, "WEBP", save_all=True, append_images=others, duration=round(1000 / fps), loop=0, quality=80, method=0)
    return out.getvalue()
