"""The studio's left side: picture, prompt, preset, every other parameter, advice and the forecast."""

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
from i2v_lab.widgets.studio.controls import Controls, preset_of, whole
from i2v_lab.widgets.studio.debounce import Debounced
from i2v_lab.widgets.studio.elements import DropZone
from i2v_lab.widgets.studio.forecast_line import forecast_line
from i2v_lab.widgets.studio.html import box, button, classed, described, escape, html_line, titled
from i2v_lab.widgets.studio.model_list import choices, kind_of, standard
from i2v_lab.widgets.studio.strings import Strings

SHOWN_SIDE = 720  # of the picture with its crop


class ClipForm:
    """The form for one clip.

    Attributes:
        controls: one for each field of ClipParams.
        params: what was entered; None while something in it is wrong.
        whole: the same with nothing left open; see `models.resolve`.
        expected: seconds that the clip is predicted to take, once that is known.
        widget: what is shown.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        strings: Strings,
        changed: Callable[[ClipParams | None], None],
        generate: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        """
        Args:
            changed: called after each change, with the params, or None where they are wrong.
            generate, stop: called by the buttons.
        """
        self.store, self.settings, self.strings, self._changed = store, settings, strings, changed
        self.params: ClipParams | None = None
        self.whole: ClipParams | None = None
        self._followed = ""  # the model whose fields are shown
        self.expected: float | None = None
        self._opened: tuple[tuple[str, float], Picture] | None = None
        self._drawn: tuple[str, float] | None = None
        self._quiet = False
        # The forecast takes seconds the first time: the crop and the advice do not wait for it.
        self._preview: Debounced[tuple[str, ClipParams | None]] = Debounced(self._show_preview)
        self._forecast: Debounced[ClipParams | None] = Debounced(self._show_forecast)
        self.drop = DropZone(words={**strings.some("hint", "sending", "slow"), "choose": strings("choose_file")})
        self.controls = Controls(strings, self._entered)
        self.model = described(widgets.Dropdown, strings("model_help"), description=strings.label("model"))
        self.model_fault = html_line("i2vs-fault")
        self.preset = described(
            widgets.ToggleButtons,
            strings("preset_help"),
            options=[("-", "")],
            value=None,
            description=strings("preset"),
            tooltips=[""],
        )
        samples = [(strings("sample"), ""), *((strings.named("sample", name), name) for name in SAMPLES)]
        self.sample = described(widgets.Dropdown, strings("sample_help"), options=samples, description=strings("sample_help"))
        self.force = described(widgets.Checkbox, strings("force_help"), description=strings("force"), indent=False)
        self.advice, self.forecast = html_line("i2vs-advice"), html_line("i2vs-outlook")
        self.generate = button(strings("generate"), strings("generate_help"), "i2vs-primary", act=generate)
        self.stop = button(strings("stop"), strings("stop_help"), "i2vs-stop", act=stop)
        self.stop.disabled = True
        self.message = html_line("i2vs-message")
        self.widget = self._layout()
        self.model.observe(self._use_model, "value")
        self.preset.observe(self._use_preset, "value")
        self.sample.observe(self._use_sample, "value")

    def _layout(self) -> Any:
        classed(self.preset, "i2vs-preset")
        self.controls["model"].entry.description = self.strings("model_other")
        chosen = box([self.model, self.model_fault], "i2vs-model")
        classed(self.sample, "i2vs-sample", "i2vs-unseen")
        fields = {name: control.widget for name, control in self.controls.fields.items()}
        path, prompt = fields.pop("image"), fields.pop("prompt")
        basic = [name for name in self.controls.basic() if name in fields and name != "model"]
        shown = box([fields.pop(name) for name in basic], "i2vs-grid")
        negative, model = fields.pop("negative_prompt"), fields.pop("model")
        more = box([negative, model, box(list(fields.values()), "i2vs-grid"), self.force])
        fold = titled(widgets.Accordion, [(self.strings("advanced"), more)], "i2vs-fold")
        fold.selected_index = None  # ipywidgets 7 opens the first
        source = box([path, self.sample], "i2vs-source", row=True)
        actions = box([self.generate, self.stop], "i2vs-actions", row=True)
        foot = box([actions, self.message, self.forecast, self.advice], "i2vs-foot")  # what comes and goes is below the buttons
        return box([chosen, self.drop, source, prompt, self.preset, shown, fold, foot], "i2vs-left")

    def set(self, values: dict[str, Any]) -> None:
        """Show these fields. With a model among them, what is not given is the model's own default."""
        if kind := kind_of(values.get("model", "")):
            self._followed = values["model"]
            self.controls.follow(kind)
            values = {**standard(kind), **values}
        self.controls.set(values)

    def to_make(self) -> ClipParams | None:
        """The clip that is asked for now, with nothing left open: a seed of -1 is drawn at each call.

        Raises:
            I2VLabError: the picture is gone.
        """
        return models.resolve(self.params, self._look) if self.params else None

    def what_is_wrong(self) -> str:
        """The first fault of the form, with the name of its field; "" where there is none."""
        for name, control in self.controls.fields.items():
            if control.wrong:
                return f"{self.strings.label(name)}: {control.wrong}"
        return ""

    def say(self, html: str) -> None:
        """One line above the buttons."""
        self.message.value = html

    def show_busy(self, *, running: bool, queued: bool, own: bool) -> None:
        """Set the buttons: whether a job runs, whether any runs or waits, and whether one of those is this kernel's own."""
        self.stop.disabled = not running
        self.drop.busy = own
        self.generate.description = self.strings("queue" if queued else "generate")

    def update_forecast(self) -> None:
        """Something was measured: the planner knows more now."""
        self._forecast.ask(self.whole)

    def _use_model(self, change: Any) -> None:
        if change["new"] and not self._quiet:
            self.controls.set({"model": change["new"]})

    def _use_preset(self, change: Any) -> None:
        if change["new"] and not self._quiet:
            presets = models.find(self.controls["model"].value)[0].presets
            self.controls.set(whole(presets, change["new"]))

    def _use_sample(self, change: Any) -> None:
        if change["new"]:
            self.controls["image"].set(f"sample:{change['new']}")
            self.sample.value = ""

    def _entered(self) -> None:
        """After a change: say what is wrong, or what the clip will be."""
        model = self.controls["model"].value
        if model != self._followed and (kind := kind_of(model)):  # its own standard; prompt, picture and seed stay
            self._followed = model
            self.controls.follow(kind)
            self.controls.set(standard(kind))  # which calls this again
            return
        self.params = self.controls.params(self._look)
        self.whole = self.to_make()
        self._show_model(model)
        self._show_meaning()
        self.message.value = ""
        self.expected = None
        if not self.controls["image"].value.strip():
            self.controls["image"].blame(self.strings("no_picture"))
        self._show_presets()
        self._changed(self.params)
        self._preview.ask((self.controls["image"].value.strip(), self.whole))

    def _show_meaning(self) -> None:
        """What auto, a name such as 480p, and seconds come to with this model and picture."""
        frames, whole = self.controls["num_frames"].meaning, self.whole
        frames.value = f"= {whole.num_frames}" if whole and self.params and whole.num_frames != self.params.num_frames else ""
        size = self.strings("size").format(height=whole.height, width=whole.width) if whole else ""
        self.controls["resolution"].meaning.value = escape(size)

    def _show_model(self, model: str) -> None:
        self._quiet = True
        if model not in (known := [value for _, value in self.model.options]):
            self.model.options = options = choices(model, self.settings, self.strings)
            known = [value for _, value in options]
        self.model.value = model if model in known else None
        self._quiet = False
        self.model_fault.value = self.controls["model"].fault.value

    def _show_presets(self) -> None:
        try:
            presets = models.find(self.controls["model"].value)[0].presets
        except I2VLabError:
            return
        options = [(self.strings.named("preset", name), name) for name in presets]
        chosen = preset_of(self.params, presets) if self.params else None
        self._quiet = True
        if list(self.preset.options) != options:
            self.preset.options = options
            self.preset.tooltips = [", ".join(f"{key} {value}" for key, value in fields.items()) for fields in presets.values()]
        self.preset.value = chosen
        self._quiet = False

    # In a thread of Debounced

    def _show_preview(self, asked: tuple[str, ClipParams | None], is_last: Callable[[], bool]) -> None:
        path, params = asked
        picture = self._open(path)
        if picture:
            self._draw(picture, params)
        self._advise(params, picture)
        self._forecast.ask(params if picture else None)

    def _open(self, path: str) -> Picture | None:
        if not path:
            return None
        try:
            return self._look(path)
        except PictureError as error:
            self._opened = self._drawn = None
            self.drop.picture, self.drop.alt = b"", ""
            self.controls["image"].blame(error.message)
            return None

    def _look(self, path: str = "") -> Picture:
        """The picture at a path, or that of the form, opened once.

        Raises:
            PictureError: it cannot be opened.
        """
        path = path or self.controls["image"].value.strip()
        try:
            changed = 0.0 if path.startswith("sample:") else Path(path).stat().st_mtime
        except (OSError, ValueError):
            changed = 0.0
        opened = self._opened
        if opened is None or opened[0] != (path, changed):
            self._opened = opened = ((path, changed), open_picture(path))
        return opened[1]

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
        self.drop.alt = self.strings("picture_alt").format(name=picture.path.name, width=picture.width, height=picture.height)
        self.drop.picture = out.getvalue()

    def _advise(self, params: ClipParams | None, picture: Picture | None) -> None:
        lines = [f"<li>{escape(note)}</li>" for note in (picture.notes if picture else ())]
        for item in models.advice(params, picture) if params else []:
            lines.append(f"<li><b>{escape(self.strings.label(item.field))}</b> {escape(self.strings.advice(item))}</li>")
        self.advice.value = f'<div role="status"><ul>{"".join(lines)}</ul></div>' if lines else ""

    def _show_forecast(self, params: ClipParams | None, is_last: Callable[[], bool]) -> None:
        text, seconds = forecast_line(params, self.store, self.settings, self.strings) if params else ("", None)
        if is_last():
            self.forecast.value, self.expected = text, seconds
            self._say_what_fits()

    def _say_what_fits(self) -> None:
        """Name the tier beside each model whose memory was predicted before."""
        chosen = self.model.value
        options = choices(self.controls["model"].value, self.settings, self.strings, fits=True)
        if list(self.model.options) != options:
            self._quiet = True
            self.model.options, self.model.value = options, chosen
            self._quiet = False
