"""The worker: a process that takes one job after another, and keeps the model until it has been idle for long.

Its standard input is a pipe from the job runner: a byte means that a job was added or should stop, its end that the runner's
process is gone. Then the running clip is finished, or stopped where the worker was started so, and no other is begun.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext, suppress
from typing import cast

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.devices.turns import lent
from i2v_lab.errors import I2VLabError, Stop
from i2v_lab.jobs.crew import OWN_DEVICE, SHARED_TURN, TURN_IS_OURS, TURN_IS_OVER, WITH_PARENT
from i2v_lab.jobs.progress import NOTE_SECONDS, ClipProgress, JobProgress, SweepJobProgress
from i2v_lab.jobs.remote import Remote
from i2v_lab.log import start_log
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings, load_settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Job, Jobs, JobState, result_of
from i2v_lab.store.processes import may_take, own_name
from i2v_lab.sweep import run_sweep
from i2v_lab.sweep.file import parse_sweep
from i2v_lab.sweep.tune import parse_tune, run_tune

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.2  # between two looks for a job, where no byte came


class Worker:
    """Makes the jobs of a queue, until there is nothing to do for `idle_seconds` or the runner's process is gone."""

    def __init__(
        self, settings: Settings, *, stop_with_parent: bool = False, own_device: bool = False, shared_turn: bool = False
    ) -> None:
        """
        Args:
            settings: of the jobs that have none of their own.
            stop_with_parent: stop the running clip when the runner's process ends.
            own_device: the device of the settings is this worker's, whichever CUDA device a job names.
            shared_turn: the runner has the turn of the CPU for this worker and others, and says when.
        """
        self.settings, self.stop_with_parent, self.own_device = settings, stop_with_parent, own_device
        self.shared_turn, self._is_our_turn = shared_turn, not shared_turn
        self.store = Store(settings.output.directory)
        self.jobs = Jobs(self.store.database)
        self.remote = Remote(self.store, settings) if settings.cluster.has_address else None
        self.name, self.owner = own_name(), own_name(os.getppid())
        self.alone = False  # the runner's process is gone, or wants this one to end
        self.progress: JobProgress | None = None
        self._came, self._closed = threading.Event(), False  # a byte from the runner; the end of its pipe
        threading.Thread(target=self._listen, name="what the runner says", daemon=True).start()
        signal.signal(signal.SIGTERM, lambda *_: self._end("the server was stopped"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the runner's process

    def _end(self, reason: str) -> None:
        self.alone = True
        if self.progress:
            self.progress.stop_reason = reason

    def work(self) -> None:
        """Take jobs until it is time to end."""
        try:
            self._work()
        finally:
            self._leave_cluster()

    def _work(self) -> None:
        idle_since, prepared = time.monotonic(), False
        while not self.alone:
            job = self.jobs.claim(self.name, self.owner) if self._may_claim() else None
            if not job and not prepared:
                prepared = True
                self._prepare()
            elif job:
                self.make(job)
                idle_since = time.monotonic()
                self._heard()
            elif (left := idle_since + self.settings.server.idle_seconds - time.monotonic()) <= 0:
                log.info("idle for %g s: the model's memory is given back", self.settings.server.idle_seconds)
                return
            else:
                self._heard(min(left, LOOK_SECONDS))

    def _may_claim(self) -> bool:
        """Whether the next job could begin now: it is our turn, and a worker of the cluster is there."""
        if not self.remote:
            return self._is_our_turn
        if any(job.state == "waiting" and may_take(job.owner, self.owner) for job in self.jobs.active()):
            return self.remote.ready()
        self.remote.rest()
        return False

    def _prepare(self) -> None:
        """Import what a clip of the settings' model needs, while nobody waits."""
        if self.remote:
            return
        with suppress(I2VLabError):
            from i2v_lab.models.sampling import import_diffusers

            import_diffusers()
            if models.find(self.settings.model)[0].size_gb:
                import diffusers.schedulers  # noqa: F401

    def _heard(self, seconds: float = 0.0) -> bool:
        """Whether a byte came from the runner within so long."""
        if self.alone:
            return False
        heard = self._came.wait(seconds)
        self._came.clear()
        if self._closed:
            if self.stop_with_parent:
                self._end("the process that asked for it has ended")
            self.alone = True
        return heard

    def _listen(self) -> None:
        """Read what the runner sends: in a thread, because Windows cannot wait for a pipe with a time limit."""
        with suppress(OSError):
            while said := os.read(0, 4096):
                for letter in (said[at : at + 1] for at in range(len(said))):
                    if self.shared_turn and letter in (TURN_IS_OURS, TURN_IS_OVER):
                        self._is_our_turn = letter == TURN_IS_OURS
                self._came.set()
        self._closed = True
        self._came.set()

    def make(self, job: Job) -> None:
        """Make one job. Whatever happens, it ends."""
        log.info("job %s begins", job.id)
        try:
            making = {"sweep": self._sweep, "tune": self._tune}.get(job.kind, self._clip)
            with lent(("cpu",)) if self.shared_turn else nullcontext():
                state, reason, result = making(job)
        except Stop as stop:  # while another process had the device: there is no run to record
            state, reason, result = "stopped", str(stop), ""
        except I2VLabError as error:
            state, reason, result = "failed", str(error), ""
        except Exception as error:
            log.exception("unexpected error in job %s", job.id)
            state, reason, result = "failed", f"unexpected {type(error).__name__}; the log has the details", ""
        finally:
            self.progress = None
        if not self.jobs.end(job, state, reason, result):
            self.jobs.restore([job])  # where the database was lost
            self.jobs.end(job, state, reason, result)

    def _settings(self, job: Job) -> Settings:
        """The worker's settings, with those that came with the job."""
        own = json.loads(job.settings or "{}")
        above = {name: own.pop(name) for name in ("device", "parallel") if name in own}
        if self.own_device and above.get("device") != "cpu":
            above["device"] = self.settings.device
        return self.settings.model_copy(update={**above, "output": self.settings.output.model_copy(update=own)})

    def _clip(self, job: Job) -> tuple[JobState, str, str]:
        self.progress = ClipProgress(self.jobs, job, self._heard)
        params, settings = ClipParams.model_validate_json(job.params), self._settings(job)
        force = bool(job.force)
        if self.remote:
            record = self.remote.make(params, settings, self.progress, force=force, id=job.id)
            self.progress.made_at(record.host, record.pid)
        else:
            record = run_clip(params, None, self.store, progress=self.progress, settings=settings, force=force, id=job.id)
        state = cast(JobState, record.status)  # it has ended
        return state, record.reason, result_of(record, job.id) if state == "done" else ""

    def _leave_cluster(self) -> None:
        """Give the worker of the cluster back; a sweep asks for workers of its own."""
        if self.remote:
            self.remote.close()

    def _sweep(self, job: Job) -> tuple[JobState, str, str]:
        self._leave_cluster()
        self.progress = progress = SweepJobProgress(self.jobs, job, self._heard)
        settings = self._settings(job)
        made = run_sweep(parse_sweep(job.sweep), self.store, settings=settings, progress=progress)
        stopped, problem = made.stopped, ""
        if not stopped or progress.job.stop_after == "cell":
            try:
                words = ["sweep", str(made.folder / "sweep.yaml"), "--retry", "none"]
                problem = self._report(words, settings, progress)
            except Stop as stop:
                stopped = str(stop)
        result = json.dumps({"sweep": made.id, "counts": made.counts, "ran": made.ran, "problem": problem})
        return "stopped" if stopped else "done", stopped, result

    def _tune(self, job: Job) -> tuple[JobState, str, str]:
        self._leave_cluster()
        self.progress = progress = SweepJobProgress(self.jobs, job, self._heard)
        settings = self._settings(job)
        made = run_tune(parse_tune(job.sweep), self.store, settings=settings, progress=progress)
        outcome, problem, stopped = made.outcome, "", "" if made.outcome.complete else made.stopped
        if not stopped:
            try:
                problem = self._report(["tune", str(made.folder / "tune.yaml"), "--no-clips"], settings, progress)
            except Stop as stop:
                stopped = str(stop)
        result = {
            "tune": made.folder.name,
            "pair": made.pair,
            "complete": outcome.complete,
            "problem": problem,
            "winner": made.winner,
        }
        return "stopped" if stopped else "done", stopped, json.dumps(result)

    def _report(self, words: list[str], settings: Settings, progress: SweepJobProgress) -> str:
        """Make a report, by the command that makes it: a process of its own, which ends when it should stop.

        Returns what failed of it; "" where nothing did.
        """
        command = [sys.executable, "-P", "-m", "i2v_lab", *words, "--json",
                   "--output-dir", str(self.store.directory), "--device", settings.device, "--parallel", str(settings.parallel)]  # fmt: skip
        command += ["--cluster", settings.cluster.address] if settings.cluster.address else []
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
            try:
                while process.poll() is None:
                    progress.reporting()
                    self._heard(NOTE_SECONDS)
                    if self.alone and self.stop_with_parent:
                        raise Stop(progress.stop_reason)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
            if process.returncode == 0:
                return ""
            said.seek(0)
            text = said.read().decode(errors="replace")
        log.error("no report of %s: %s", words[1], text)
        return f"the report could not be made: {(text.strip().splitlines() or ['no answer'])[-1]}"


def main() -> None:
    """The entry point: `python -m i2v_lab.jobs.worker`, with the settings of the environment."""
    settings = load_settings()
    start_log(settings.log.directory)
    try:
        given = {"stop_with_parent": WITH_PARENT, "own_device": OWN_DEVICE, "shared_turn": SHARED_TURN}
        Worker(settings, **{name: word in sys.argv for name, word in given.items()}).work()
    except Exception as error:
        log.exception("the worker ends")
        sys.exit(f"worker: {error}")


if __name__ == "__main__":
    main()
