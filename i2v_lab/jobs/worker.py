"""The worker: a process that takes one job after another, makes its clip and keeps the model until it has been idle for long.

Its standard input is a pipe from the server: a byte says that a job came, its end that the server is gone. Then the running
clip is finished, and no other is begun.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from contextlib import suppress

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.clip.record import RunRecord
from i2v_lab.devices.turns import turn
from i2v_lab.errors import I2VLabError, Stop
from i2v_lab.log import start_log
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings, load_settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Job, JobQueue, own_name, result_of

log = logging.getLogger(__name__)
TELL_SECONDS = 0.2  # between two notes of where a clip stands
LOOK_SECONDS = 0.5  # between two looks for a job, where no byte came
NAME = "the server"  # for those who wait for the device


class JobProgress(Progress):
    """Notes in the queue where the clip stands, and ends it when the job should stop."""

    def __init__(self, queue: JobQueue, job: Job) -> None:
        self.queue, self.job = queue, job
        self.name, self.at, self.total, self.began = "", 0, None, time.time()  # type: str, int, int | None, float
        self.told = 0.0
        self.stop_reason = ""

    def stage(self, name: str, total: int | None = None) -> None:
        if name != self.name:
            self.began = time.time()
        self.name, self.at, self.total = name, 0, total
        self._tell()

    def step(self, preview: Preview | None = None) -> None:
        self.at += 1
        if time.monotonic() - self.told >= TELL_SECONDS:
            self._tell()
        elif self.stop_reason:
            raise Stop(self.stop_reason)

    def waiting(self, line: str) -> None:
        """Another has the device."""
        if self.name != "wait":
            log.info("job %s: %s", self.job.id, line)
            self.stage("wait")
        elif time.monotonic() - self.told >= TELL_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self.told = time.monotonic()
        reason = self.stop_reason or self.queue.tell(self.job.id, self.name, self.at, self.total, self.began)
        if reason:
            raise Stop(reason)


class Worker:
    """Makes the clips of a queue, until there is nothing to do for `idle_seconds` or the server is gone."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.output.directory)
        self.queue = JobQueue(self.store.directory)
        self.name = own_name()
        self.alone = False  # the server is gone
        self.progress: JobProgress | None = None
        signal.signal(signal.SIGTERM, self._hear)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to answer

    def _hear(self, number: int, frame: object) -> None:
        self.alone = True
        if self.progress:
            self.progress.stop_reason = "the server was stopped"

    def work(self) -> None:
        """Take jobs until it is time to end."""
        idle_since = time.monotonic()
        while not self.alone:
            job = self.queue.claim(self.name)
            if job:
                self.make(job)
                idle_since = time.monotonic()
                self._wait(0)
            elif (left := idle_since + self.settings.server.idle_seconds - time.monotonic()) <= 0:
                log.info("idle for %g s: the model's memory is given back", self.settings.server.idle_seconds)
                return
            else:
                self._wait(min(left, LOOK_SECONDS))

    def _wait(self, seconds: float) -> None:
        with suppress(InterruptedError):
            while select.select([0], [], [], seconds)[0]:
                if not os.read(0, 4096):
                    self.alone = True
                    return
                seconds = 0

    def make(self, job: Job) -> None:
        """Make one clip. Whatever happens, the job ends."""
        log.info("job %s begins", job.id)
        self.progress = JobProgress(self.queue, job)
        try:
            record = self._run(ClipParams.model_validate_json(job.params), job, self.progress)
        except Stop as stop:  # while another had the device: there is no run to record
            self.queue.end(job, "stopped", str(stop))
        except I2VLabError as error:
            self.queue.end(job, "failed", str(error))
        except Exception as error:
            log.exception("unexpected error in job %s", job.id)
            self.queue.end(job, "failed", f"unexpected {type(error).__name__}; the log has the details")
        else:
            self.settle(job, record)
        finally:
            self.progress = None

    def settle(self, job: Job, record: RunRecord) -> None:
        """The job ends as its run did."""
        if record.status == "done":
            self.queue.end(job, "done", result=result_of(record, job.id))
        elif record.status in ("failed", "out_of_memory", "stopped"):
            self.queue.end(job, record.status, record.reason)
        else:
            self.queue.end(job, "failed", f"expected a run that ended, got one that is {record.status}")

    def _run(self, params: ClipParams, job: Job, progress: JobProgress) -> RunRecord:
        try:
            known = models.open(params.model, self.settings.device, params.dtype).identity_here
            devices = (known.device,) if known else ()
        except I2VLabError:
            devices = ()  # run_clip meets the same, and records it
        with turn(devices, NAME, progress.waiting):
            return run_clip(params, None, self.store, progress=progress, settings=self.settings, id=job.id)


def main() -> None:
    """The entry point: `python -m i2v_lab.jobs.worker`, with the settings of the environment."""
    settings = load_settings()
    start_log(settings.log.directory)
    try:
        Worker(settings).work()
    except Exception as error:
        log.exception("the worker ends")
        sys.exit(f"worker: {error}")


if __name__ == "__main__":
    main()
