"""The controls of a studio: each is made from its field of ClipParams, which has range, step, unit and help.

What is entered is checked by ClipParams and by nothing else: an entry takes any text, and what is wrong with it is shown
below it. (A slider alone would clamp it silently.)
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from i2v_lab import models
from i2v_lab.clip.levers import CHOSEN, NEUTRAL
from i2v_lab.clip.params import AUTO, OPTIONAL, ClipParams
from i2v_lab.clip.picture import Picture
from i2v_lab.errors import I2VLabError, ParamsError, PictureError
from i2v_lab.models.base import VideoModel
from i2v_lab.widgets.studio.html import box, button, classed, described, escape, html_line
from i2v_lab.widgets.studio.strings import Strings

FINE_BELOW = 32  # up to here a slider has every whole number; above, twice as wide steps with every doubling
SLIDER_MAX = 2**31  # beyond it no slider makes sense


def stops(lowest: float, highest: float, step: float) -> list[float]:
    """The values of a slider: even steps in a short range; in a long one of whole numbers, wider steps the larger they are."""
    if step < 1 or lowest <= 0 or highest / lowest < FINE_BELOW:
        return [lowest + step * number for number in range(int((highest - lowest) / step) + 1)]
    found, value = [], int(lowest)
    while value < highest:
        found.append(float(value))
        width = FINE_BELOW
        while value >= width:
            width *= 2
        value += int(step) * (width // FINE_BELOW)
    return [*found, float(highest)]


class Control:
    """One field of ClipParams: a labelled entry, a slider where there is a range, a line for what it means and one for what is wrong.

    Attributes:
        value: as it was entered: what ClipParams takes. wrong: what is wrong with it; "" for nothing.
        widget: what is shown.
    """

    def __init__(self, name: str, about: Mapping[str, Any], strings: Strings, changed: Callable[[], None]) -> None:
        self.name, self._strings, self._changed, self._quiet = name, strings, changed, False
        limits = {**about, **about.get("anyOf", [{}])[0]}
        numeric = limits.get("type") in ("integer", "number")
        self.entry = _entry(name, about, strings, numeric=numeric)
        self.slider: Any = None
        self.wrong = ""
        self.fault, self.meaning = html_line("i2vs-fault"), html_line("i2vs-meaning")
        row: list[Any] = [self.entry]
        if unit := strings.unit(about.get("unit", ""), name):
            row.append(html_line("i2vs-unit", value=unit))
        if numeric and "minimum" in limits and limits["maximum"] < SLIDER_MAX:
            self._stops = stops(limits["minimum"], limits["maximum"], about["step"] or 1)
            slider = described(
                widgets.SelectionSlider, strings.label(name), options=_named(self._stops), readout=False, continuous_update=True
            )
            self.slider = classed(slider, "i2vs-slider")
            self.slider.observe(self._slid, "value")
        elif name == "seed":
            row.append(button("⚂", strings("new_seed"), "i2vs-small", act=lambda: self.set(secrets.randbelow(2**31))))
        elif name == "resolution":
            row.append(button("▣", strings("own_shape"), "i2vs-small", act=lambda: self.set(AUTO)))
        self.entry.observe(self._entered, "value")
        parts = [box(row, "i2vs-entry", row=True), *([self.slider] if self.slider else []), self.meaning, self.fault]
        self.widget = box(parts, "i2vs-control", f"i2vs-field-{name}")
        if "default" in about:
            self.set(about["default"])

    @property
    def value(self) -> Any:
        return self.entry.value

    def set(self, value: Any) -> None:
        """Show a value; `changed` is called once."""
        shown = (
            repr(value).removesuffix(".0") if isinstance(value, float) else "" if value is None else str(value)
        )  # all digits: they decide the clip
        if isinstance(self.entry, widgets.Dropdown) and shown not in self.entry.options:
            shown = self.entry.options[0]
        self.entry.value = shown
        self._move_slider()

    def offer(self, options: Sequence[str]) -> None:
        """List other values to choose from; the entry stays where it may."""
        if tuple(self.entry.options) != tuple(options):
            self.entry.options = tuple(options)

    def slide_over(self, found: Sequence[float]) -> None:
        """Let the slider have these values."""
        if list(found) != self._stops:
            self._quiet, self._stops = True, list(found)
            self.slider.options = _named(self._stops)
            self._quiet = False
            self._move_slider()

    def show(self, shown: bool) -> None:
        """Show or hide the field."""
        self.widget.layout.display = None if shown else "none"

    def blame(self, text: str) -> None:
        """Show what is wrong with the entry; "" for nothing."""
        self.wrong = self._strings.say(text)
        self.fault.value = escape(self.wrong)
        (self.widget.add_class if text else self.widget.remove_class)("i2vs-wrong")

    def _entered(self, _: Any) -> None:
        self._move_slider()
        self._changed()

    def _move_slider(self) -> None:
        if self.slider is None:
            return
        try:
            wanted = float(self.entry.value)
        except ValueError:
            return
        self._quiet = True  # the nearest stop may differ from what was entered
        self.slider.value = min(self._stops, key=lambda stop: abs(stop - wanted))
        self._quiet = False

    def _slid(self, change: Any) -> None:
        if not self._quiet:
            self.entry.value = f"{change['new']:g}"


def _named(values: Sequence[float]) -> list[tuple[str, float]]:
    return [(f"{value:g}", value) for value in values]


def _entry(name: str, about: Mapping[str, Any], strings: Strings, *, numeric: bool) -> Any:
    """The labelled entry of a field; continuous where text is typed at length."""
    kind, more = widgets.Text, {"continuous_update": False, "placeholder": strings.placeholder(name)}
    if "enum" in about:
        kind, more = widgets.Dropdown, {"options": about["enum"]}
    elif name in CHOSEN:
        kind, more = widgets.Dropdown, {"options": [""]}
    elif not numeric and "maxLength" in about and "minLength" not in about:  # sentences
        kind, more = widgets.Textarea, {"placeholder": strings.placeholder(name), "rows": 2}
    elif name in ("model", "resolution"):
        kind, more = widgets.Combobox, {"options": (), "ensure_option": False, "continuous_update": False}
    return described(kind, strings.help(name, about["description"]), description=strings.label(name), **more)


class Controls:
    """A control for every field of ClipParams, in the order of its schema.

    Args:
        changed: called after every change, once where many fields are set together.
    """

    def __init__(self, strings: Strings, changed: Callable[[], None]) -> None:
        self._changed, self._held = changed, True
        self.hidden: frozenset[str] = frozenset()  # what the model does not read
        self.about: dict[str, Any] = ClipParams.model_json_schema()["properties"]
        self.fields = {name: Control(name, about, strings, self._one_changed) for name, about in self.about.items()}
        self._held = False

    def __getitem__(self, name: str) -> Control:
        return self.fields[name]

    def basic(self) -> list[str]:
        """The fields that most people change."""
        return [name for name, about in self.about.items() if about["basic"]]

    def values(self) -> dict[str, Any]:
        """What was entered, as ClipParams takes it; without what the model does not read. Seconds win over a number of frames."""
        values = {name: control.value for name, control in self.fields.items() if name not in self.hidden}
        if values["seconds"]:
            del values["num_frames"]
        return {name: value for name, value in values.items() if value or self.about[name].get("default", "") is not None}

    def follow(self, kind: type[VideoModel]) -> None:
        """Show the fields that a family reads, its sizes, its schedulers, and its numbers of frames."""
        self._held = True
        try:
            self.hidden = frozenset(OPTIONAL) - kind.reads
            for name in OPTIONAL:
                self.fields[name].show(name not in self.hidden)
            self.fields["model"].offer(models.LISTED)
            self.fields["resolution"].offer([*kind.sizes, AUTO])
            self.fields["scheduler"].offer(kind.schedulers)
            for name in CHOSEN:
                self.fields[name].offer(["", NEUTRAL[name], *kind.levers.get(name, ())])
            rule = kind.frame_rule
            found = sorted({rule.nearest(stop) for stop in stops(rule.least, rule.most, 1)})
            self.fields["num_frames"].slide_over([float(frames) for frames in found])
        finally:
            self._held = False

    def entered(self) -> dict[str, str]:
        """What each entry says, of all fields."""
        return {name: control.value for name, control in self.fields.items()}

    def type_in(self, values: Mapping[str, Any]) -> None:
        """Entries that the page has, and that may come later by themselves."""
        found = {name: text for name, text in values.items() if name in self.fields and text != self.fields[name].value}
        if found:
            self.set(found)

    def set(self, values: Mapping[str, Any]) -> None:
        """Show some fields."""
        self._held = True
        try:
            for name, value in values.items():
                self.fields[name].set(value)
        finally:
            self._held = False
        self._changed()

    def params(self, look: Callable[[], Picture] | None = None) -> ClipParams | None:
        """What was entered, once it is valid and the model can make it; None after each fault was shown at its field.

        Args:
            look: see `models.resolve`.
        """
        params, faults = check(self.values(), look)
        for name, control in self.fields.items():
            control.blame(faults.get(name, ""))
        return params

    def _one_changed(self) -> None:
        if not self._held:
            self._changed()


def check(values: Mapping[str, Any], look: Callable[[], Picture] | None = None) -> tuple[ClipParams | None, Mapping[str, str]]:
    """(params, {}) or (None, {field: what is wrong with it}), also where this model cannot make the clip."""
    try:
        params = ClipParams(**values)
    except ParamsError as error:
        return None, dict(error.faults)
    try:
        models.find(params.model)[0].check(models.resolve(params, look))
    except PictureError as error:  # its shape decides the size
        return None, {"image": error.message}
    except I2VLabError as error:
        field, _, text = str(error).partition(": ")
        return None, {field: text} if field in values else {"model": str(error)}
    return params, {}


def preset_of(params: ClipParams, presets: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The preset whose fields these params have, and of the fields of the others the defaults; None where there is none."""
    plain = params.plain()
    return next((name for name in presets if all(plain.get(key) == value for key, value in whole(presets, name).items())), None)


def whole(presets: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """What a preset says, with what the other presets set and it does not as in the standard one, or without a value."""
    fields = {key: presets.get("standard", {}).get(key) for preset in presets.values() for key in preset}
    return {**fields, **presets[name]}
