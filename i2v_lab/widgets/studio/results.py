"""The studio's right side for clips: what is made now and what waits, the clip on the screen, the strip of the latest ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import ClipError, I2VLabError
from i2v_lab.store import Store
from i2v_lab.widgets.studio import clips
from i2v_lab.widgets.studio.follow import Follower
from i2v_lab.widgets.studio.front import Screen, Strip
from i2v_lab.widgets.studio.outlook import progress
from i2v_lab.widgets.studio.strings import Words
from i2v_lab.widgets.studio.text import box, button, escape, html_line
from i2v_lab.widgets.studio.worker import Job, Worker


class Now:
    """What is being made, and what waits, each with a button that takes it out."""

    def __init__(self, work: Worker, words: Words) -> None:
        self._worker, self.words = work, words
        self.title, self.progress = html_line("i2vs-title"), html_line()
        self.queue = box([], "i2vs-queue")
        self._listed: list[Job] = []
        self.widget = box([self.title, self.progress, self.queue], "i2vs-now")

    def update(self) -> None:
        """To be called by one thread at a time."""
        job = self._worker.current
        ready = f"{escape(self.words('ready'))} <small>{escape(self.words('ready_hint'))}</small>"
        self.title.value = f"<b>{escape(self.words('making'))}</b> {escape(title(job, self.words))}" if job else ready
        self.progress.value = progress(job, self.words) if job else ""
        if (waiting := list(self._worker.waiting)) != self._listed:
            self._listed, before = waiting, self.queue.children
            self.queue.children = [self._row(number, one) for number, one in enumerate(waiting, 1)]
            for row in before:
                for part in (*row.children, row):
                    part.close()

    def _row(self, number: int, job: Job) -> Any:
        line = html_line("i2vs-waiting")
        line.value = f"<small>{escape(self.words('waits').format(number=number))}</small> {escape(title(job, self.words))}"
        out = button("✕", self.words("take_out"), "i2vs-small")
        out.on_click(lambda _: self._worker.remove(job))
        return box([line, out], "i2vs-row", row=True)


def title(job: Job, words: Words) -> str:
    """What a job is, in a line."""
    if job.sweep:
        return words("sweep_called").format(name=job.sweep.name)
    return f"{job.params.prompt[:80] or words('no_prompt')} · {clips.summary(job.params, words)}"


class Showing:
    """The screen, the facts of the clip on it, and the strip.

    Args:
        restore: called with a run whose settings are to be shown in the controls.
    """

    def __init__(self, store: Store, words: Words, restore: Callable[[RunRecord], None]) -> None:
        self.store, self.words, self._restore = store, words, restore
        self.screen = Screen(empty=words("nothing_yet"))
        self.told, self.facts = html_line("i2vs-message"), html_line("i2vs-about")
        self.strip = Strip(words=words.some("choose", "empty", "running", "failed", "out_of_memory", "stopped", "gone", "planned"))
        self.strip.on_open(self._open)
        self.strip.observe(self._chose, "chosen")
        self.play = button("", words("compare_help"), "i2vs-play")
        self.play.on_click(self._compare)
        self.close = button("✕", words("close"), "i2vs-small")
        self.close.on_click(lambda _: self._close_player())
        self.player = box([], "i2vs-player-box")
        self._live: Job | None = None
        self._chose(None)
        self._shown = box([self.screen, box([self.told, self.facts], "i2vs-side")], "i2vs-shown")
        head = html_line("i2vs-strip-head")
        head.value = f"<b>{escape(words('latest'))}</b> <small>{escape(words('strip_help'))}</small>"
        self.widget = box([self.player, self._shown, box([head, self.play], "i2vs-row", row=True), self.strip], "i2vs-clips")
        self._filler: Follower[None] = Follower(self._fill)
        self.refresh()

    def refresh(self) -> None:
        """Look into the record again."""
        self._filler.ask(None)

    def on_job(self, job: Job) -> None:
        """On the worker's thread."""
        if job.sweep:
            if job.state == "over":
                self.refresh()
            return
        if job.state == "running":
            if self._live is not job:
                self._live = job
                self.facts.value = ""
                self._preview = b""
            if job.preview and job.preview is not self._preview:
                self._preview = job.preview
                size = (job.params.height, job.params.width)
                self.screen.show(job.preview, "image/webp", size, self.words("preview"), rough=True)
        elif job.state == "over":
            self._live = None
            if job.record:
                self.show(job.record, made_before=job.made_before)
                self.refresh()
            elif job.error:
                self.told.value = clips.error_line(job.error, self.words)

    def show(self, record: RunRecord, *, made_before: bool = False) -> None:
        """The run's clip, or why there is none."""
        self.told.value, copy = "", False
        if record.status != "done":
            self.told.value = clips.error_line(f"{self.words(record.status)}: {self.words.line(record.reason)}", self.words)
            self.screen.show(b"", "", (9, 16), "")
        elif clip := clips.clip_of(record, self.store):
            try:
                data, mime, copy = clips.played(clip)
                size = (record.params.height, record.params.width) if record.params else (9, 16)
                self.screen.show(data, mime, size, record.params.prompt if record.params else "")
            except ClipError as error:
                self.told.value = clips.error_line(error, self.words)
        else:
            self.told.value = clips.error_line(self.words("clip_gone").format(clip=record.clip), self.words)
            self.screen.show(b"", "", (9, 16), "")
        self.facts.value = clips.facts(record, self.store, self.words, made_before=made_before, copy=copy)

    def _open(self, id: str) -> None:
        self._close_player()
        try:
            record = self.store.get(id)
            if record is None:
                return
            self._restore(record)
            self.show(record)
        except I2VLabError as error:
            self.told.value = clips.error_line(error, self.words)

    def _fill(self, _: None, current: Callable[[], bool]) -> None:
        try:
            records = self.store.records(limit=clips.LATEST)[::-1]
        except I2VLabError as error:
            self.told.value = clips.error_line(error, self.words)
            return
        for found in clips.cards(records, self.store, self.words):
            if not current():
                return
            if found != self.strip.items:
                self.strip.items = [dict(one) for one in found]
        there = {one["id"] for one in self.strip.items}
        self.strip.chosen = [id for id in self.strip.chosen if id in there]

    # Two clips and more go to the player

    def _chose(self, _: Any) -> None:
        count = len(self.strip.chosen)
        self.play.description = self.words("compare").format(count=count) if count > 1 else self.words("compare_two")
        self.play.disabled = count < 2

    def _compare(self, _: Any) -> None:
        try:
            records = [self.store.get(id) for id in self.strip.chosen]
            chosen = [record.id for record in records if record and clips.clip_of(record, self.store)]
            shown = player(self.store, chosen)
        except I2VLabError as error:
            self.told.value = clips.error_line(error, self.words)
            return
        self._close_player()
        self._shown.layout.display = "none"
        self.player.children = [box([self.close], "i2vs-row", "i2vs-close", row=True), shown]

    def _close_player(self) -> None:
        for child in self.player.children[1:]:
            child.close()
        self.player.children = []
        self._shown.layout.display = None


def player(store: Store, ids: list[str]) -> Any:
    """A widget in which these runs play in step."""
    from i2v_lab.widgets.compare import compare

    table = store.runs()
    shown = compare(table[table["id"].isin(ids)])
    return shown if isinstance(shown, widgets.Widget) else widgets.HTML(shown._repr_html_())
