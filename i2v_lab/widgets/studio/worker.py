"""The worker: a thread that makes what the studios of this process ask for, one after another.

Cells run and pages close meanwhile. A studio only looks on: it puts jobs in, and is told where they are.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.devices.hardware import machine
from i2v_lab.devices.turns import turn
from i2v_lab.errors import I2VLabError, Stop
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, SweepProgress, SweepResult, SweepStatus, run_sweep

log = logging.getLogger(__name__)

TELL_SECONDS = 0.15  # between two updates of what screens show
PREVIEW_SECONDS = 0.7  # between two previews
PREVIEW_SHARE = 20  # and this many times what the last one took: previews must not slow the clip down

_numbers = itertools.count(1)


@dataclass(eq=False)
class Job:
    """What was asked for, a clip or a sweep, and how far it is. While it runs, its thread alone writes to it, but `stop`.

    Attributes:
        params: of the clip; of a sweep the base.
        sweep: None for a clip.
        force: make the clip even where it was made before.
        state: waiting (for those before it), running, over.
        note: what it waits for while it runs: the turn of another process.
        stage, step, steps: where the clip is; steps is None where it is not known.
        stages: {stage: seconds} of those that have ended.
        seconds_left: until the end; None where nothing is known.
        expected: seconds of the whole, as was planned; None where it was not.
        preview: the latents as a moving WebP; b"" before the first.
        record: how the clip ended; None before, and where the run was not begun. made_before: it is that of an earlier run.
        standing, result: of a sweep.
        error: why nothing came of it, where no record says so.
        stop: "step" or "cell": end after this one.
    """

    params: ClipParams
    store: Store
    settings: Settings
    sweep: Sweep | None = None
    force: bool = False
    expected: float | None = None
    number: int = field(default_factory=lambda: next(_numbers))
    state: Literal["waiting", "running", "over"] = "waiting"
    note: str = ""
    stage: str = ""
    step: int = 0
    steps: int | None = None
    stages: dict[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    preview: bytes = b""
    record: RunRecord | None = None
    made_before: bool = False
    standing: SweepStatus | None = None
    result: SweepResult | None = None
    error: str = ""
    stop: Literal["", "cell", "step"] = ""


class Worker:
    """The queue and its thread. Views are objects with `on_job(job)`, which is called from this thread; they are kept weakly."""

    def __init__(self) -> None:
        self.waiting: list[Job] = []
        self.current: Job | None = None
        self.last: Job | None = None
        self._views: weakref.WeakSet[Any] = weakref.WeakSet()
        self._turn = threading.Condition()
        self._thread: threading.Thread | None = None

    def listen(self, view: Any) -> None:
        with self._turn:
            self._views.add(view)

    def ignore(self, view: Any) -> None:
        with self._turn:
            self._views.discard(view)

    def put(self, job: Job) -> None:
        """Make it once all before it are over."""
        with self._turn:
            self.waiting.append(job)
            if self._thread is None or not self._thread.is_alive():  # it does not survive a fork
                # A daemon: a kernel that is asked to end does not wait for a clip; its record then says that it was killed.
                self._thread = threading.Thread(target=self._work, name="studio worker", daemon=True)
                self._thread.start()
            self._turn.notify()
        self.tell(job)

    def remove(self, job: Job) -> None:
        """Take out one that has not begun."""
        with self._turn:
            if job not in self.waiting:
                return
            self.waiting.remove(job)
            job.state = "over"
        self.tell(job)

    def stop(self, after: Literal["cell", "step"] = "step") -> None:
        """Ask the one that runs to end."""
        if (job := self.current) is not None:
            job.stop = after

    def tell(self, job: Job) -> None:
        with self._turn:
            views = list(self._views)
        for view in views:
            try:
                view.on_job(job)
            except Exception:  # a screen that fails is no reason for a clip to fail
                log.exception("a studio could not show job %d", job.number)

    def _work(self) -> None:
        while True:
            with self._turn:
                while not self.waiting:
                    self._turn.wait()
                job = self.current = self.waiting.pop(0)
                job.state = "running"
            self.tell(job)
            try:
                _make_sweep(job, self.tell) if job.sweep else _make_clip(job, self.tell)
            except I2VLabError as error:
                job.error = str(error)
            except Exception as error:
                log.exception("unexpected error in job %d", job.number)
                job.error = f"unexpected {type(error).__name__}: {' '.join(str(error).split())}; the log has the details"
            with self._turn:
                job.state, job.note, job.seconds_left = "over", "", None
                self.current, self.last = None, job
            self.tell(job)


@cache
def worker() -> Worker:
    """The worker of this process."""
    return Worker()


def device_of(params: ClipParams, settings: Settings) -> str:
    """Where a clip would be made: "cpu", "cuda:0"."""
    try:
        known = models.open(params.model, settings.device, params.dtype).identity_here
    except I2VLabError:  # told by the run
        known = None
    if known:
        return known.device
    return settings.device if settings.device != "auto" else "cuda:0" if machine()["vram_gib"] else "cpu"


def _make_clip(job: Job, tell: Callable[[Job], None]) -> None:
    ear = _Ear(job, tell)
    with turn((device_of(job.params, job.settings),), "a studio", ear.wait):
        job.note = ""
        id = new_id()
        job.record = run_clip(
            job.params, None, job.store, progress=ear, settings=job.settings, force=job.force, id=id
        )  # fmt: skip
        job.made_before = job.record.id != id
    ear.ended()


class _Ear(Progress):
    """Hears a run, writes into the job where it is, and ends it when asked."""

    # Seconds of a stage by the clip's pixels, as they were the last time in this process: to tell what follows denoising.
    pace: dict[str, float] = {}  # noqa: RUF012

    def __init__(self, job: Job, tell: Callable[[Job], None]) -> None:
        self.job, self.tell = job, tell
        self.pixels = job.params.height * job.params.width * job.params.num_frames
        self._began = self._stage_began = time.monotonic()
        self._told = self._next_preview = 0.0

    def wait(self, line: str) -> None:
        """Another has the device."""
        self._end_if_asked()
        self.job.note = line
        self._tell()
        self._began = time.monotonic()

    def stage(self, name: str, total: int | None = None) -> None:
        self._end_if_asked()
        self.ended()
        self._stage_began = time.monotonic()
        self.job.stage, self.job.step, self.job.steps = name, 0, total
        self._tell(at_once=True)

    def step(self, preview: Preview | None = None) -> None:
        self._end_if_asked()
        self.job.step += 1
        now = time.monotonic()
        if preview and now >= self._next_preview:
            try:
                self.job.preview = moving_webp(preview(), float(self.job.params.fps))
            except Exception:  # a preview that fails is no reason for the clip to fail
                log.exception("no preview")
            took = time.monotonic() - now
            self._next_preview = now + max(PREVIEW_SECONDS, PREVIEW_SHARE * took)
        self._tell()

    def ended(self) -> None:
        """The stage is over."""
        if self.job.stage:
            took = time.monotonic() - self._stage_began
            self.job.stages[self.job.stage] = self.job.stages.get(self.job.stage, 0.0) + took
            self.pace[self.job.stage] = took / self.pixels
        self.job.stage = ""

    def _end_if_asked(self) -> None:
        if self.job.stop:
            raise Stop("stopped by hand")

    def _tell(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if at_once or now - self._told >= TELL_SECONDS:
            self._told = now
            self.job.seconds_left = self._left(now)
            self.tell(self.job)

    def _left(self, now: float) -> float | None:
        job = self.job
        if job.stage in ("denoise", "decode", "write") and job.steps and job.step:
            later = {"denoise": ("decode", "write"), "decode": ("write",)}.get(job.stage, ())
            here = (now - self._stage_began) / job.step * (job.steps - job.step)
            return here + sum(self.pace.get(stage, 0.0) * self.pixels for stage in later)
        return None if job.expected is None else max(0.0, job.expected - (now - self._began))


def moving_webp(frames: Any, fps: float) -> bytes:
    """A preview, uint8 RGB (F, h, w, 3), as a looping WebP."""
    import io

    from PIL import Image

    first, *others = (Image.fromarray(frame) for frame in frames)
    out = io.BytesIO()
    first.save(out, "WEBP", save_all=True, append_images=others, duration=round(1000 / fps), loop=0, quality=80, method=0)
    return out.getvalue()


def _make_sweep(job: Job, tell: Callable[[Job], None]) -> None:
    assert job.sweep  # noqa: S101 - who calls looked

    class Ear(SweepProgress):
        told = 0.0

        def cell(self, status: SweepStatus) -> None:
            if job.stop:
                raise Stop("stopped by hand")

        def updated(self, status: SweepStatus) -> None:
            job.standing, job.seconds_left = status, status.seconds_left
            if job.stop == "step" and not status.over:
                raise Stop("stopped by hand")
            if status.over or time.monotonic() - self.told >= TELL_SECONDS:
                self.told = time.monotonic()
                tell(job)

    job.result = run_sweep(job.sweep, job.store, settings=job.settings, progress=Ear(), on_cell=lambda cell, record: tell(job))
