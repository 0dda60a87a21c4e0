"""The studio: one widget in which clips and sweeps are made; what it shows outlives its page."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.clip.video import read_settings
from i2v_lab.devices.hardware import machine
from i2v_lab.errors import I2VLabError, PictureError
from i2v_lab.run import restore
from i2v_lab.settings import load_settings
from i2v_lab.store import Store
from i2v_lab.widgets.studio import clips
from i2v_lab.widgets.studio.asking import Asking
from i2v_lab.widgets.studio.controls import check
from i2v_lab.widgets.studio.intake import Intake, is_clip
from i2v_lab.widgets.studio.showing import Now, Showing
from i2v_lab.widgets.studio.strings import Words
from i2v_lab.widgets.studio.sweeping import Sweeping
from i2v_lab.widgets.studio.text import box, escape, html_line
from i2v_lab.widgets.studio.worker import Job, worker

if TYPE_CHECKING:
    import pandas as pd


class Studio(widgets.VBox):  # type: ignore[misc]
    """Make clips in a notebook: picture, prompt and parameters on the left, what comes of them on the right.

    Clips are made on a thread of their own, one after another: cells run meanwhile, a page may be closed, and a studio
    opened again in the same kernel shows the clip in the making. What was finished is in the record of runs.

        studio = Studio(output_dir="../results", prompt="camera panning left slowly")
        studio

    Attributes:
        store: where clips and their records go.
        record: how the clip made last in this kernel ended; None before the first.
    """

    def __init__(self, *, lang: str = "en", output_dir: str | Path | None = None, device: str | None = None, **params: Any) -> None:
        """
        Args:
            lang: en or zh.
            output_dir: of clips and records; None: as in the settings.
            device: auto, cpu, cuda or cuda:N; None: as in the settings.
            params: fields of ClipParams to begin with.

        Raises:
            InputError: the settings or a field are wrong. StoreError: the record of runs cannot be opened.
        """
        self._words = words = Words(lang)
        self._settings = load_settings(output={"directory": output_dir}, device=device)
        begin = ClipParams(**{"model": self._settings.model, "image": "sample:coffee", **params})
        self.store = Store(self._settings.output.directory)
        _log_to(self._settings.log.directory)
        self._worker, self._one = worker(), threading.RLock()
        self._intake = Intake(self.store.directory)
        self._asking = Asking(self.store, self._settings, words, self._changed)
        self._now = Now(self._worker, words)
        self._showing = Showing(self.store, words, self._restore_run)
        self._sweeping = Sweeping(self.store, self._settings, words, self._worker, self._restore_run)
        self._asking.drop.on_msg(self._hear)
        self._asking.generate.on_click(lambda _: self._generate())
        self._asking.stop.on_click(lambda _: self._worker.stop())
        head = html_line("i2vs-head")
        head.value = self._head()
        pages = widgets.Tab(
            children=[self._showing.widget, self._sweeping.widget], titles=(words("clip_tab"), words("sweep_tab"))
        )  # fmt: skip
        pages.add_class("i2vs-pages")
        right = box([self._now.widget, pages], "i2vs-right")
        super().__init__([head, box([self._asking.widget, right], "i2vs-columns")])
        self.add_class("i2vs-studio")
        self._asking.set(begin.plain())
        self._worker.listen(self)
        self._show_worker()

    def _head(self) -> str:
        device = self._settings.device
        if device == "auto":
            device = "cuda:0" if machine()["vram_gib"] else "cpu"
        about = self._words("about").format(
            device=f"{device} ({machine(device)['device_name']})", folder=self.store.directory.resolve()
        )
        return f"<b>{escape(self._words('name'))}</b> <small>{escape(about)}</small>"

    @property
    def params(self) -> ClipParams:
        """The clip that the controls say. Raises ParamsError where one of them is wrong."""
        return ClipParams(**self._asking.controls.values())

    @property
    def record(self) -> RunRecord | None:
        last = self._worker.last
        return last.record if last else None

    def set(self, **params: Any) -> None:
        """Show these fields of ClipParams in the controls."""
        self._asking.set(self.params.replace(**params).plain())

    def runs(self) -> pd.DataFrame:
        """The table of runs; see Store.runs."""
        return self.store.runs()

    def close(self) -> None:
        """Take the studio off the page; what is being made goes on."""
        self._worker.ignore(self)
        super().close()

    def __repr__(self) -> str:
        return f"Studio(output_dir={str(self.store.directory)!r})"

    def on_job(self, job: Job) -> None:
        """Something about a job has changed."""
        with self._one:  # the kernel's thread puts jobs in while the worker's tells of them: what is newer must come last
            self._now.update()
            self._asking.works(busy=self._worker.current is not None or bool(self._worker.waiting))
            if job.state != "waiting":
                self._showing.on_job(job)
                self._sweeping.on_job(job)
        if job.state == "over":
            self._asking.look_again()

    def _show_worker(self) -> None:
        """What was begun before this studio was opened."""
        job = self._worker.current or self._worker.last
        if job is not None:
            self.on_job(job)
        else:
            self._now.update()

    def _changed(self, params: ClipParams | None) -> None:
        self._sweeping.use(params)

    def _generate(self) -> None:
        if (params := self._asking.params) is None:
            return
        job = Job(params, self.store, self._settings, force=self._asking.force.value, expected=self._asking.expected)
        self._asking.say("")
        self._worker.put(job)

    # Settings that come back

    def _restore_run(self, record: RunRecord) -> None:
        if record.params is None:
            return
        values = record.params.plain()
        kept = self.store.find_picture(record.image_sha256) if record.image_sha256 else None
        if kept and not values["image"].startswith("sample:") and not Path(values["image"]).is_file():
            values["image"] = str(kept)
        self._asking.set(values)

    def _restore_clip(self, path: Path) -> None:
        """The settings that a file carries. Nothing in it is trusted."""
        try:
            params, _ = restore(path, self.store)
            self._asking.set(params.plain())
            self._asking.say(f'<span role="status">{escape(self._words("restored").format(name=path.name))}</span>')
        except PictureError as error:
            carried: Mapping[str, Any] = read_settings(path)["params"]
            values = {
                **self._asking.controls.values(),
                **{name: value for name, value in carried.items() if name not in ("image", "model")},
            }
            params_here, _ = check(values)
            if params_here is None:
                raise
            self._asking.set(params_here.plain())
            line = f"{self._words('restored_without').format(name=path.name)} {self._words('drop_picture')}"
            self._asking.say(f'<span role="alert" class="i2vs-error" title="{escape(error)}">{escape(line)}</span>')

    def _hear(self, _: Any, message: Any, buffers: Any) -> None:
        """A message of the drop zone."""
        if not isinstance(message, dict):
            return
        drop = self._asking.drop
        try:
            if message.get("type") == "look":
                self._showing.refresh()
            elif message.get("type") == "run":
                if record := self.store.get(str(message.get("run"))):
                    self._restore_run(record)
                    self._showing.show(record)
            else:
                answer, path = self._intake.hear(message, buffers)
                drop.send(answer)
                if path:
                    self._take(path)
        except I2VLabError as error:
            if "id" in message:
                drop.send({"id": message["id"], "refused": self._words.line(str(error))})
            self._asking.say(clips.error_line(error, self._words))

    def _take(self, path: Path) -> None:
        """Use a file that was dropped: a clip's settings, or the picture."""
        if is_clip(path):
            self._restore_clip(path)
            return
        from i2v_lab.clip.picture import open_picture

        open_picture(path)  # what is no picture is told here, and the one before stays
        self._asking.set({"image": str(path)})


class _LogFile(logging.FileHandler):
    """A log that is made with its first line, which most studios never write."""

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk ends the log, not the clip, and shows nobody a traceback."""


def _log_to(folder: Path) -> None:
    """Keep what goes wrong in a file, unless somebody reads the log already."""
    log = logging.getLogger("i2v_lab")
    if not log.handlers:
        handler = _LogFile(folder / f"studio_{datetime.now():%Y%m%d_%H%M%S}.log", encoding="utf-8", delay=True)
        handler.setLevel(logging.WARNING)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
