"""Rows of axes, a field and its values each, as the tabs of sweeps and of tune have them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as widgets

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import Message, SweepError
from i2v_lab.sweep.axes import PROMPTS
from i2v_lab.widgets.studio.html import box, button, classed, close_all, described
from i2v_lab.widgets.studio.strings import Strings

ONE_A_LINE = (*PROMPTS, "image")  # a comma belongs to the sentence, or to the name of a file


class AxisRow:
    """A row: which field, its values as in a sweep file, and a button that removes it. Sentences and pictures are one a line."""

    def __init__(
        self, field: str, values: str, strings: Strings, changed: Callable[[], None], remove: Callable[[AxisRow], None]
    ) -> None:
        self._strings, self._changed = strings, changed
        names = [(strings.label(name), name) for name in ClipParams.model_fields]
        self.field = described(widgets.Dropdown, strings("axis"), options=names, value=field, description=strings("axis"))
        self._out = button("✕", strings("remove_axis"), "i2vs-small", act=lambda: remove(self))
        self.field.observe(lambda _: self._another(), "value")
        self.widget = box([], "i2vs-axis", row=True)
        classed(self.field, "i2vs-unseen")
        self.values: Any = None
        self._show_values(values)

    def given(self) -> Any:
        """The values as an axis takes them.

        Raises:
            SweepError: there are none.
        """
        name = self.field.value
        lines = [line.strip() for line in self.values.value.splitlines() if line.strip()]
        if not lines:
            raise SweepError(Message(f"{name}: expected at least one value, got none; enter values such as {self._strings.values(name)}, "
                                     "or remove this axis", "axis.empty", name=self._strings.label(name)))  # fmt: skip
        return lines if name in ONE_A_LINE and len(lines) > 1 else lines[0] if name in ONE_A_LINE else self.values.value

    def _show_values(self, values: str) -> None:
        name = self.field.value
        lines = name in ONE_A_LINE
        options = {"continuous_update": False, **({"rows": max(2, values.count("\n") + 1)} if lines else {})}
        self.values = described(
            widgets.Textarea if lines else widgets.Text, self._strings("lines_help" if lines else "values_help"), value=values,
            placeholder=self._strings.values(name), description=self._strings("values"), **options,
        )  # fmt: skip
        classed(self.values, "i2vs-unseen").observe(lambda _: self._changed(), "value")
        self.widget.children = [self.field, self.values, self._out]

    def _another(self) -> None:
        before = self.values
        self._show_values(before.value)
        before.close()
        self._changed()


class AxisRows:
    """What a tab with axes has.

    Attributes:
        rows: the axes. axes: the box that shows them.
    """

    strings: Strings
    axes: Any
    rows: list[AxisRow]

    def set_axes(self, axes: Iterable[tuple[str, str]]) -> None:
        """Show these axes, (field, values) of each, in place of the others."""
        before = self.rows
        self.rows = [AxisRow(field, values, self.strings, self._edited, self._remove) for field, values in axes]
        self.axes.children = [row.widget for row in self.rows]
        for row in before:
            close_all(row.widget)
        self._edited()

    def _remove(self, row: AxisRow) -> None:
        self.set_axes([(one.field.value, one.values.value) for one in self.rows if one is not row])

    def _edited(self) -> None:
        """An axis, or a value of one, is another now."""
        raise NotImplementedError
