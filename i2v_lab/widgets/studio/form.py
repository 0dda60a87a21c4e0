"""The studio's left side: picture, prompt, preset, every other parameter, and the lines that follow them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets
from PIL import Image

from i2v_lab import models
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import SAMPLES, Picture, open_picture
from i2v_lab.errors import I2VLabError, PictureError
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.widgets.studio.controls import Controls, preset_of
from i2v_lab.widgets.studio.follow import Follower
from i2v_lab.widgets.studio.front import DropZone
from i2v_lab.widgets.studio.outlook import outlook
from i2v_lab.widgets.studio.strings import Words
from i2v_lab.widgets.studio.text import box, button, escape, html_line

SHOWN_SIDE = 720  # of the picture with its crop


class Asking:
    """Attributes:
    controls: one a field of ClipParams.
    params: what was entered; None while something in it is wrong.
    expected: seconds that it will take, once that is known.
    widget: what is shown.
    """

    def __init__(self, store: Store, settings: Settings, words: Words, changed: Callable[[ClipParams | None], None]) -> None:
        self.store, self.settings, self.words, self._changed = store, settings, words, changed
        self.params: ClipParams | None = None
        self.expected: float | None = None
        self._opened: tuple[tuple[str, float], Picture] | None = None
        self._drawn: Any = None
        self._quiet = False
        self.drop = DropZone(words={**words.some("hint", "sending", "slow"), "choose": words("choose_file")})
        self.controls = Controls(words, self._follow)
        self.preset = widgets.ToggleButtons(options=[("-", "")], value=None, description=words("preset"))
        self.sample = widgets.Dropdown(options=[(words("sample"), ""), *((words.sample(name), name) for name in SAMPLES)])
        self.force = widgets.Checkbox(description=words("again"), indent=False, tooltip=words("anew_help"))
        self.advice, self.outlook = html_line("i2vs-advice"), html_line("i2vs-outlook")
        self.generate = button(words("generate"), words("generate_help"), "i2vs-primary")
        self.stop = button(words("stop"), words("stop_help"), "i2vs-stop")
        self.stop.disabled = True
        self.message = html_line("i2vs-message")
        self.widget = self._layout()
        self.preset.observe(self._use_preset, "value")
        self.sample.observe(self._use_sample, "value")
        self._follower: Follower[tuple[str, ClipParams | None]] = Follower(self._catch_up)
        self._planner: Follower[ClipParams | None] = Follower(
            self._foresee
        )  # seconds, the first time: the crop does not wait for it

    def _layout(self) -> Any:
        self.preset.add_class("i2vs-preset")
        self.sample.add_class("i2vs-sample")
        fields = {name: control.widget for name, control in self.controls.fields.items()}
        path, prompt = fields.pop("image"), fields.pop("prompt")
        basic = [name for name in self.controls.basic() if name in fields and name != "model"]
        shown = box([fields.pop(name) for name in basic], "i2vs-grid")
        negative, model = fields.pop("negative_prompt"), fields.pop("model")
        fold = widgets.Accordion(
            children=[box([negative, model, box(list(fields.values()), "i2vs-grid"), self.force])], titles=(self.words("advanced"),)
        )  # fmt: skip
        fold.add_class("i2vs-fold")
        source = box([path, self.sample], "i2vs-source", row=True)
        actions = box([self.generate, self.stop], "i2vs-actions", row=True)
        foot = box([self.outlook, self.message, actions], "i2vs-foot")
        return box([self.drop, source, prompt, self.preset, shown, fold, self.advice, foot], "i2vs-left")

    def set(self, values: dict[str, Any]) -> None:
        """Show these fields."""
        self.controls.set(values)

    def say(self, html: str) -> None:
        """One line above the buttons."""
        self.message.value = html

    def works(self, *, busy: bool) -> None:
        """Whether something is being made: what the buttons mean."""
        self.stop.disabled = not busy
        self.drop.busy = busy
        self.generate.description = self.words("queue" if busy else "generate")

    def look_again(self) -> None:
        """Something was measured: the planner knows more now."""
        self._planner.ask(self.params)

    def _use_preset(self, change: Any) -> None:
        if change["new"] and not self._quiet:
            self.controls.set(models.preset(self.controls["model"].value, change["new"]))

    def _use_sample(self, change: Any) -> None:
        if change["new"]:
            self.controls["image"].set(f"sample:{change['new']}")
            self.sample.value = ""

    def _follow(self) -> None:
        """After a change: say what is wrong with it, or what it will be."""
        self.params = self.controls.params()
        self.message.value = ""
        self.expected = None
        if not self.controls["image"].value.strip():
            self.controls["image"].blame(self.words("no_picture"))
        self.generate.disabled = self.params is None
        self._show_presets()
        self._changed(self.params)
        self._follower.ask((self.controls["image"].value.strip(), self.params))

    def _show_presets(self) -> None:
        try:
            presets = models.find(self.controls["model"].value)[0].presets
        except I2VLabError:
            return
        options = [(self.words.preset(name), name) for name in presets]
        chosen = preset_of(self.params, presets) if self.params else None
        self._quiet = True
        if list(self.preset.options) != options:
            self.preset.options = options
            self.preset.tooltips = [", ".join(f"{key} {value}" for key, value in fields.items()) for fields in presets.values()]
        self.preset.value = chosen
        self._quiet = False

    # On the follower's thread

    def _catch_up(self, asked: tuple[str, ClipParams | None], current: Callable[[], bool]) -> None:
        path, params = asked
        picture = self._open(path)
        if picture:
            self._draw(picture, params)
        self._advise(params, picture)
        self._planner.ask(params if picture else None)

    def _open(self, path: str) -> Picture | None:
        if not path:
            return None
        try:
            changed = 0.0 if path.startswith("sample:") else Path(path).stat().st_mtime
        except (OSError, ValueError):
            changed = 0.0
        if self._opened is None or self._opened[0] != (path, changed):
            try:
                self._opened = ((path, changed), open_picture(path))
            except PictureError as error:
                self._opened = self._drawn = None
                self.drop.picture, self.drop.alt = b"", ""
                self.controls["image"].blame(str(error))
                return None
        return self._opened[1]

    def _draw(self, picture: Picture, params: ClipParams | None) -> None:
        size = (params.height, params.width) if params else (1, 1)
        wanted = (picture.sha256, size[0] / size[1])
        if wanted == self._drawn:
            return
        self._drawn = wanted
        shown = Image.fromarray(picture.draw_crop(*size))
        shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        out = io.BytesIO()
        shown.save(out, "JPEG", quality=88)
        self.drop.alt = self.words("picture_alt").format(name=picture.path.name, width=picture.width, height=picture.height)
        self.drop.picture = out.getvalue()

    def _advise(self, params: ClipParams | None, picture: Picture | None) -> None:
        notes = [self.words.line(note) for note in picture.notes] if picture else []
        found = models.advice(params, picture) if params else []
        lines = [f"<li>{escape(note)}</li>" for note in notes]
        lines += [
            f"<li><b>{escape(self.words.label(item.field))}</b> {escape(self.words.line(item.what))}: "
            f"{escape(self.words.line(item.why))}; {escape(self.words.line(item.remedy))}</li>"
            for item in found
        ]
        self.advice.value = f'<ul role="status">{"".join(lines)}</ul>' if lines else ""

    def _foresee(self, params: ClipParams | None, current: Callable[[], bool]) -> None:
        told, seconds = outlook(params, self.store, self.settings, self.words) if params else ("", None)
        if current():
            self.outlook.value, self.expected = told, seconds
