"""The studio's right side for clips: the running job and the queue, the clip on the screen, the strip of the latest ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import STOPPED_BY_HAND
from i2v_lab.jobs import JobRunner, JobStatus
from i2v_lab.store import Store
from i2v_lab.store.jobs import Job
from i2v_lab.sweep.file import parse_sweep
from i2v_lab.sweep.tune import parse_tune
from i2v_lab.widgets.studio import clips, elsewhere
from i2v_lab.widgets.studio.debounce import Debounced
from i2v_lab.widgets.studio.elements import CodePanel, Screen, Strip
from i2v_lab.widgets.studio.forecast_line import STAGES, job_progress
from i2v_lab.widgets.studio.html import box, button, escape, html_line, refill
from i2v_lab.widgets.studio.step_player import StepPlayer
from i2v_lab.widgets.studio.strings import Strings


class QueuePane:
    """The running job, and those that wait, each with a button that removes it."""

    def __init__(self, runner: JobRunner, strings: Strings) -> None:
        self._runner, self.strings = runner, strings
        self.title, self.progress = html_line("i2vs-title"), html_line()
        self.queue = box([], "i2vs-queue")
        self.clear = button(strings("stop_all"), strings("stop_all_help"), "i2vs-stop", act=self._stop_all)
        self._listed: list[str] = []
        self._records: list[RunRecord] = []
        self.widget = box([self.title, self.progress, self.queue, self.clear], "i2vs-now")

    def show(self, running: JobStatus | None, others: list[JobStatus], records: list[RunRecord]) -> None:
        """Called by one thread at a time.

        Args:
            others: those that run in other processes, and those that wait. records: runs outside of the queue.
        """
        ready = f"{escape(self.strings('ready'))} <small>{escape(self.strings('ready_hint'))}</small>"
        making = escape(title(running.job, self.strings)) if running else ""
        if not running and records:
            making = self._record_text(records[0])
        self.title.value = f"<b>{escape(self.strings('making'))}</b> {making}" if making else ready
        self.progress.value = job_progress(running, self.strings) if running else ""
        self._records = records if running else records[1:]
        self.clear.layout.display = None if others or self._records else "none"
        ids = [f"{status.job.id} {status.job.state}" for status in others] + [one.id for one in self._records]
        if ids != self._listed:
            self._listed = ids
            rows = [*(self._job_row(status) for status in others), *(self._record_row(one) for one in self._records)]
            refill(self.queue, rows)
        for row, status in zip(self.queue.children, others, strict=False):
            row.children[0].value = self._job_text(status)  # a job of another worker goes on

    def _job_row(self, status: JobStatus) -> Any:
        return self._row(self._job_text(status), lambda: self._stop_one(status.job))

    def _job_text(self, status: JobStatus) -> str:
        """HTML: a job in a line: its place, or where the worker is that makes it."""
        job, at = status.job, ""
        where = self.strings("waits").format(number=status.place) if status.place else self.strings("also")
        if job.state == "running" and job.stage in STAGES:
            at = f" · {self.strings.named('stage', job.stage)}" + (f" {job.step}/{job.steps}" if job.steps else "")
        return f"<small>{escape(where)}</small> {escape(title(job, self.strings))}{escape(at)}"

    def _record_row(self, record: RunRecord) -> Any:
        return self._row(self._record_text(record), lambda: elsewhere.stop(record))

    def _record_text(self, record: RunRecord) -> str:
        """HTML: a run outside of the queue in a line."""
        about = about_clip(record.params, self.strings) if record.params else record.id
        return f"<small>{escape(self.strings('elsewhere').format(pid=record.pid))}</small> {escape(about)}"

    def _row(self, text: str, remove: Callable[[], None]) -> Any:
        return box(
            [html_line("i2vs-waiting", value=text), button("✕", self.strings("take_out"), "i2vs-small", act=remove)],
            "i2vs-row",
            row=True,
        )

    def _stop_one(self, job: Job) -> None:
        self._runner.stop(job.id, STOPPED_BY_HAND if job.state == "running" else "removed from the queue")

    def _stop_all(self) -> None:
        for job in reversed(self._runner.jobs.active()):  # those that wait first: none of them begins
            self._stop_one(job)
        for record in self._records:
            elsewhere.stop(record)


def title(job: Job, strings: Strings) -> str:
    """A job in a line."""
    if job.kind == "tune":
        return strings("tune_called").format(name=parse_tune(job.sweep).name)
    if job.kind == "sweep":
        return strings("sweep_called").format(name=parse_sweep(job.sweep).name)
    return about_clip(ClipParams.model_validate_json(job.params), strings)


def about_clip(params: ClipParams, strings: Strings) -> str:
    """A clip in a line."""
    return f"{params.prompt[:80] or strings('no_prompt')} · {clips.summary(params, strings)}"


class ResultPane:
    """The screen, the facts of the clip on it, and the strip."""

    def __init__(self, store: Store, strings: Strings, restore: Callable[[RunRecord], None]) -> None:
        """
        Args:
            restore: called with a run whose settings are to be shown in the form.
        """
        self.store, self.strings, self._restore = store, strings, restore
        self._filler: Debounced[None] = Debounced(self._fill)
        self.job, self._previews = "", 0  # the running clip whose previews are shown, and how many there were
        self.screen = Screen(empty=strings("nothing_yet"))
        self.message, self.facts = html_line("i2vs-message"), html_line("i2vs-about")
        self.code = CodePanel(words=strings.some("code", "code_help", "code_copy", "code_copied"))
        self.strip = Strip(
            words=strings.some("choose", "delete", "empty", "running", "failed", "out_of_memory", "stopped", "gone", "planned")
        )
        self.strip.on("open", self._open)
        self.strip.on("delete", self._delete)
        self._on_screen = ""  # the run that is shown
        self._deleted: list[str] = []
        self.undo = button(strings("undo"), strings("undo_help"), act=self._undo)
        self.undo.layout.display = "none"
        self.strip.observe(self._chose, "chosen")
        self.play = button("", strings("compare_help"), "i2vs-play", act=self._play)
        self._chose(None)
        shown = box([self.screen, box([self.message, self.code, self.facts], "i2vs-side")], "i2vs-shown")
        self.player = StepPlayer(store, strings, shown)
        text = f"<b>{escape(strings('latest'))}</b> <small>{escape(strings('strip_help'))}</small>"
        head = html_line("i2vs-strip-head", value=text)
        self.widget = box(
            [self.player.widget, shown, box([head, self.undo, self.play], "i2vs-row", row=True), self.strip], "i2vs-clips"
        )
        self.refresh()

    def refresh(self) -> None:
        """Read the latest runs again."""
        self._filler.ask(None)

    def show_running(self, job: Job, preview: Callable[[str], bytes]) -> None:
        """The newest preview of a running clip.

        Args:
            preview: gives the bytes for a job's id.
        """
        if job.id != self.job:
            self.job, self._previews = job.id, 0
            self.facts.value = self.code.text = ""
        count = json.loads(job.status or "{}").get("previews", 0)
        if count != self._previews and (data := preview(job.id)):
            self._previews = count
            params = ClipParams.model_validate_json(job.params)
            self.screen.show(data, "image/webp", (params.height, params.width), self.strings("preview"), rough=True)

    def show_ended(self, job: Job) -> None:
        """The clip of a job that ended, or why there is none."""
        result = json.loads(job.result or "{}")
        if record := self.store.get(result.get("run", job.id)):
            self.show(record, made_before=result.get("made_before", False))
        else:
            self.message.value = clips.error_line(job.reason, self.strings)

    def show(self, record: RunRecord, *, made_before: bool = False) -> None:
        """The run's clip, or why there is none."""
        self.message.value, self.code.text, copy = "", "", False
        self._on_screen = record.id
        if record.status == "done" and (clip := clips.clip_of(record, self.store)):
            with clips.faults_in(self.message, self.strings):
                data, mime, copy = clips.played(clip)
                size = (record.params.height, record.params.width) if record.params else (9, 16)
                self.screen.show(data, mime, size, record.params.prompt if record.params else "")
                self.code.text = clips.script(clip, self.store)
        else:
            gone = self.strings("clip_gone").format(clip=record.clip)
            fault = gone if record.status == "done" else f"{self.strings(record.status)}: {self.strings.say(record.reason)}"
            self.message.value = clips.error_line(fault, self.strings)
            self.screen.show(b"", "", (9, 16), "")
        self.facts.value = clips.facts(record, self.store, self.strings, made_before=made_before, copy=copy)

    def _open(self, id: str) -> None:
        self.player.close()
        with clips.faults_in(self.message, self.strings):
            if record := self.store.get(id):
                self._restore(record)
                self.show(record)

    def _delete(self, id: str) -> None:
        with clips.faults_in(self.message, self.strings):
            self.store.delete(id)
            self._show_deleted([*self._deleted, id])
            if id == self._on_screen:
                self.message.value = self.facts.value = self.code.text = self._on_screen = ""
                self.screen.show(b"", "", (9, 16), "")

    def _undo(self) -> None:
        with clips.faults_in(self.message, self.strings):
            *others, last = self._deleted
            self.store.undelete(last)
            self._show_deleted(others)

    def _show_deleted(self, ids: list[str]) -> None:
        self._deleted = ids
        self.undo.layout.display = None if ids else "none"
        self.refresh()

    def _fill(self, _: None, is_last: Callable[[], bool]) -> None:
        with clips.faults_in(self.message, self.strings):
            records = self.store.records(limit=clips.LATEST)[::-1]
            for found in clips.cards(records, self.store, self.strings):
                if not is_last():
                    return
                if found != self.strip.items:
                    self.strip.items = [dict(one) for one in found]
            there = {one["id"] for one in self.strip.items}
            self.strip.chosen = [id for id in self.strip.chosen if id in there]

    # Two clips and more go to the player

    def _chose(self, _: Any) -> None:
        count = len(self.strip.chosen)
        self.play.description = self.strings("compare").format(count=count) if count > 1 else self.strings("compare_two")
        self.play.disabled = count < 2

    def _play(self) -> None:
        with clips.faults_in(self.message, self.strings):
            records = [self.store.get(id) for id in self.strip.chosen]
            self.player.play([record.id for record in records if record and clips.clip_of(record, self.store)])
