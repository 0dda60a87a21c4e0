"""The studio: one widget in which clips and sweeps are made; what it shows outlives its page."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.record import RunRecord
from i2v_lab.clip.video import read_settings
from i2v_lab.devices.gpus import default_device
from i2v_lab.devices.hardware import machine
from i2v_lab.errors import STOPPED_BY_HAND, I2VLabError, InputError, PictureError
from i2v_lab.jobs import JobStatus, shared_runner
from i2v_lab.language import LANGUAGES
from i2v_lab.log import start_log
from i2v_lab.run import restore
from i2v_lab.settings import load_settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Jobs
from i2v_lab.widgets.studio import clips
from i2v_lab.widgets.studio.controls import check
from i2v_lab.widgets.studio.elements import Head
from i2v_lab.widgets.studio.elsewhere import can_stop, made_elsewhere, stop
from i2v_lab.widgets.studio.form import ClipForm
from i2v_lab.widgets.studio.html import box, classed, close_all, escape, shown_path, titled
from i2v_lab.widgets.studio.model_list import KEPT
from i2v_lab.widgets.studio.results import QueuePane, ResultPane
from i2v_lab.widgets.studio.strings import Strings, accepted_language, language_of
from i2v_lab.widgets.studio.sweep_tab import SweepTab
from i2v_lab.widgets.studio.tune_tab import TuneTab
from i2v_lab.widgets.studio.uploads import Uploads, is_clip

if TYPE_CHECKING:
    import pandas as pd


FIRST = {"image": "sample:coffee", "prompt": "camera panning left slowly"}  # what a new form begins with


class Studio(widgets.VBox):  # type: ignore[misc]
    """Make clips in a notebook: picture, prompt and parameters on the left, results on the right.

    Clips are made one after another by a worker process, through the queue of the output folder. Cells run meanwhile, a page may be
    closed, and a studio that is opened again shows the running clip and the queue. When the kernel ends, the running clip is stopped.

        studio = Studio(output_dir="../results", prompt="camera panning left slowly")
        studio

    Attributes:
        store: where clips and their records go.
        record: the newest clip that this kernel asked for and that has ended; None before the first.
    """

    _listens = False  # a widget whose arguments are wrong is closed too

    def __init__(
        self, *, lang: str = "auto", output_dir: str | Path | None = None, device: str | None = None, **params: Any
    ) -> None:
        """
        Args:
            lang: auto (the browser's, with a switch), en or zh.
            output_dir: of clips and records; None: as in the settings.
            device: auto, cpu, cuda or cuda:N; None: as in the settings.
            params: fields of ClipParams that the form begins with. Without any the browser shows the form as it was left.

        Raises:
            InputError: the settings or a field are wrong. StoreError: the record of runs cannot be opened.
        """
        if lang not in ("auto", *LANGUAGES):
            raise InputError(f"lang: expected auto, {' or '.join(LANGUAGES)}, got {lang!r}")
        self._settings = load_settings(output={"directory": output_dir}, device=device)
        begin = ClipParams(**{"model": self._settings.model, **FIRST, **params})
        start_log(self._settings.log.directory)
        self.store = Store(self._settings.output.directory)
        self._runner = shared_runner(self.store, self._settings)
        self._jobs = Jobs(self.store.database, self._settings)
        self._shown = ""  # the job of the clip on the screen
        self._active: set[str] = set()  # the jobs that ran or waited at the last look
        self._recorded, self._elsewhere = -1, list[RunRecord]()  # the record at the last look; what is made outside of the queue
        self._lock = threading.RLock()
        self._uploads = Uploads(self.store.directory)
        self._several: list[Path] = []  # pictures that were dropped together, as far as they came
        preferred = "" if self._settings.language == "auto" else self._settings.language
        first = lang if lang != "auto" else preferred or accepted_language()
        # What was asked for in a cell is what the cell shows: such a form is not taken from the browser, nor kept there.
        self._head = Head(
            switch=lang == "auto", preferred=preferred, language=first, place="" if params else str(self.store.directory)
        )
        self._head.on_msg(self._hear_page)
        self._begun = False
        self._below: list[Any] = []  # all but the head
        self._form: ClipForm
        self._sweeps: SweepTab
        self._tunes: TuneTab
        super().__init__()
        classed(self, "i2vs-studio")
        self._build(first)
        self._form.set({"model": begin.model, **begin.given()})
        self._runner.listen(self._show_jobs, previews=True)
        self._listens = True
        self._show_jobs()

    def _build(self, lang: str) -> None:
        """Make all that is below the head, in a language; the entries keep what was entered."""
        with self._lock:
            before = self._below
            entered = (self._form.controls.entered(), self._sweeps.entered(), self._tunes.entered()) if before else None
            self._strings = strings = Strings(lang)
            self._sweeps = SweepTab(self.store, self._settings, strings, self._runner, self._restore_run, self._keep_form)
            self._tunes = TuneTab(self.store, self._settings, strings, self._runner, lambda fields: self.set(**fields))
            self._form = ClipForm(self.store, self._settings, strings, self._use, self._generate, self._stop)
            self._queue = QueuePane(self._runner, strings)
            self._results = ResultPane(self.store, strings, self._restore_run)
            self._form.drop.on_msg(self._receive)
            pages = [(strings("clip_tab"), self._results.widget), (strings("sweep_tab"), self._sweeps.widget),
                     (strings("tune_tab"), self._tunes.widget)]  # fmt: skip
            self._pages = titled(widgets.Tab, pages, "i2vs-pages")
            with self._head.hold_sync():
                self._head.language, self._head.words = lang, strings.some("name", "light", "dark")
                self._head.about = self._about()
            right = box([self._queue.widget, self._pages], "i2vs-right")
            self._below = [box([self._form.widget, right], "i2vs-columns")]
            self.children = [self._head, *self._below]
            if entered:
                self._form.set(entered[0])
                self._sweeps.enter(entered[1])
                self._tunes.enter(entered[2])
                self._shown, self._active = "", set()
                self._show_jobs()
            for widget in before:
                close_all(widget)

    def _about(self) -> str:
        device = self._settings.device
        if device == "auto":
            device = default_device()
        place = shown_path(self.store.directory.resolve())
        return self._strings("about").format(device=f"{device} ({machine(device)['device_name']})", folder=place)

    def _hear_page(self, _: Any, message: Any, __: Any) -> None:
        """A message of the head: a page that begins, another language, or what was typed last."""
        if not isinstance(message, dict):
            return
        if message.get("type") == "entries":
            fields, sweep = message.get("fields"), message.get("sweep")
            if isinstance(fields, dict) and isinstance(sweep, dict):
                self._form.controls.type_in({name: str(text) for name, text in fields.items()})
                self._sweeps.type_in(sweep.get("name"), sweep.get("axes", {}))
            return
        if self._head.switch and (wanted := language_of(str(message.get("language")))) != self._strings.lang:
            self._build(wanted)
        if message.get("type") == "begin" and not self._begun:
            self._begun = True
            self._runner.prepare()  # somebody looks, and may soon want a clip
            self._restore_form(message.get("form"))
            self._keep_form()

    def _restore_form(self, form: Any) -> None:
        """The form as a browser kept it: of an older version perhaps, so only known fields are taken."""
        if not isinstance(form, dict) or not isinstance(form.get("clip"), dict) or not isinstance(form.get("sweep"), dict):
            return
        values = {name: str(value) for name, value in form["clip"].items() if name in ClipParams.model_fields}
        self._form.set(values)
        self._sweeps.enter(form["sweep"])

    def _keep_form(self) -> None:
        """Let the browser keep what was entered, once it has said what it kept before."""
        if self._begun and self._head.place:
            self._head.form = {"clip": self._form.controls.entered(), "sweep": self._sweeps.entered()}

    def _use(self, params: ClipParams | None) -> None:
        """The form has changed."""
        self._sweeps.use(params)  # which keeps the form too
        self._tunes.use(params)

    @property
    def params(self) -> ClipParams:
        """The clip in the form. Raises ParamsError where a field is wrong."""
        return ClipParams(**self._form.controls.values())

    @property
    def record(self) -> RunRecord | None:
        if (last := self._runner.last) is None:
            return None
        return self.store.get(json.loads(last.result or "{}").get("run", last.id))

    def set(self, **params: Any) -> None:
        """Show these fields of ClipParams in the form."""
        before = self.params.given()
        if params.get("model", before["model"]) != before["model"]:  # all else is the default of the other model
            before = {name: before[name] for name in KEPT if name in before}
        self._form.set(ClipParams(**{**before, **params}).given())

    def runs(self) -> pd.DataFrame:
        """The table of runs; see Store.runs."""
        return self.store.runs()

    def close(self) -> None:
        """Remove the studio from the page; the running clip and the queue go on."""
        if self._listens:
            self._runner.ignore(self._show_jobs)
        super().close()

    def __repr__(self) -> str:
        return f"Studio(output_dir={str(self.store.directory)!r})"

    def _show_jobs(self) -> None:
        """Show the queue. Called by the runner's thread after each change."""
        with self._lock:
            active, running = self._runner.active, self._running()
            waiting = [status for status in active if status.job.state == "waiting"]
            if new := self._recorded != self._runner.recorded:  # by whoever made a clip, or deleted one
                self._recorded, self._elsewhere = self._runner.recorded, made_elsewhere(self.store, active)
            self._queue.show(running[0] if running else None, [*running[1:], *waiting], self._elsewhere)
            own = any(status.job.owner == self._jobs.owner for status in active)
            self._form.show_busy(running=bool(running) or any(map(can_stop, self._elsewhere)), queued=bool(active), own=own)
            self._sweeps.show(next((status.job for status in [*running, *active] if status.job.kind == "sweep"), None))
            self._tunes.show(next((status.job for status in [*running, *active] if status.job.kind == "tune"), None))
            if running and running[0].job.kind == "clip":
                self._results.show_running(running[0].job, self._runner.jobs.preview)
            before, self._active = self._active, {status.job.id for status in active}
            followed = self._results.job  # of another kernel, perhaps; its previews were shown
            ended = self._runner.status(followed) if followed in before - self._active else None
            if (last := ended.job if ended else self._runner.last) and last.id != self._shown:
                self._results.show_ended(last)
                self._shown = last.id
            if new:
                self._results.refresh()
            if before - self._active:
                self._form.update_forecast()

    def _running(self) -> list[JobStatus]:
        """The running jobs, those of this kernel first."""
        found = [status for status in self._runner.active if status.job.state == "running"]
        return sorted(found, key=lambda status: status.job.owner != self._jobs.owner)

    def _stop(self) -> None:
        """End the running job; the queue goes on."""
        if running := self._running():
            self._runner.stop(running[0].job.id, STOPPED_BY_HAND)
        elif self._elsewhere:
            stop(self._elsewhere[0])

    def _generate(self) -> None:
        self._form.say("")
        with clips.faults_in(self._form.message, self._strings):
            if (params := self._form.to_make()) is None:
                raise I2VLabError(self._strings("not_made").format(fault=self._form.what_is_wrong()))
            self._jobs.add_clip(params, force=self._form.force.value, expected=self._form.expected)
            self._runner.wake()

    # Settings that are restored

    def _restore_run(self, record: RunRecord) -> None:
        if record.params is None:
            return
        values = record.params.plain()
        kept = self.store.find_picture(record.image_sha256) if record.image_sha256 else None
        if kept and not values["image"].startswith("sample:") and not Path(values["image"]).is_file():
            values["image"] = str(kept)
        self._form.set(values)

    def _restore_clip(self, path: Path) -> None:
        """The settings that a file carries. Nothing in it is trusted."""
        try:
            params, _ = restore(path, self.store)
            self._form.set(params.plain())
            self._form.say(f'<span role="status">{escape(self._strings("restored").format(name=path.name))}</span>')
        except PictureError as error:
            carried: Mapping[str, Any] = read_settings(path)["params"]
            values = {
                **self._form.controls.values(),
                **{name: value for name, value in carried.items() if name not in ("image", "model")},
            }
            params_here, _ = check(values)
            if params_here is None:
                raise
            self._form.set(params_here.plain())
            line = f"{self._strings('restored_without').format(name=path.name)} {self._strings('drop_picture')}"
            self._form.say(f'<span role="alert" class="i2vs-error" title="{escape(error)}">{escape(line)}</span>')

    def _receive(self, _: Any, message: Any, buffers: Any) -> None:
        """A message of the drop zone."""
        if not isinstance(message, dict):
            return
        drop = self._form.drop
        try:
            if message.get("type") == "look":
                self._results.refresh()
            elif message.get("type") == "run":
                if record := self.store.get(str(message.get("run"))):
                    self._restore_run(record)
                    self._results.show(record)
            else:
                answer, path = self._uploads.receive(message, buffers)
                drop.send(answer)
                if message.get("type") == "begin":
                    self._group = message.get("group") or (0, 1)
                if path:
                    self._take_one(path, *self._group)
        except I2VLabError as error:
            if "id" in message:
                drop.send({"id": message["id"], "refused": self._strings.say(error.message)})
            self._form.say(clips.error_line(error, self._strings))

    def _take_one(self, path: Path, place: int, count: int) -> None:
        """A file that came whole, alone or with others: several pictures become an axis of a sweep."""
        if count == 1:
            self._take(path)
            return
        self._several = [*(self._several if place else ()), path]
        if place == count - 1:
            self._sweeps.use_pictures(self._several)
            self._pages.selected_index = 1
            self._take(self._several[0])

    def _take(self, path: Path) -> None:
        """Use a file that was dropped: a clip's settings, or the picture."""
        if is_clip(path):
            self._restore_clip(path)
            return
        open_picture(path)  # raises where it is not a picture, and the one before stays
        self._form.set({"image": str(path)})
