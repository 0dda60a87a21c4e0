"""What the tabs of sweeps and of tune have in common: rows of axes, a field and its values each, two buttons, the queue, the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as widgets

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import I2VLabError, Message, SweepError
from i2v_lab.jobs import JobRunner
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Job, JobKind, Jobs, SweepLike
from i2v_lab.sweep.axes import PROMPTS
from i2v_lab.widgets.studio import clips
from i2v_lab.widgets.studio.elements import PageLink
from i2v_lab.widgets.studio.html import box, button, classed, described, html_line, refill
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


class AxisTab:
    """What a tab with axes has.

    Attributes:
        kind: of its jobs. base: the params of the form; None while something in it is wrong.
        rows: the axes. axes: the box that shows them.
    """

    kind: JobKind

    def __init__(self, store: Store, settings: Settings, strings: Strings, runner: JobRunner, run: str) -> None:
        """
        Args:
            run: the name of the text of the button that begins.
        """
        self.store, self.settings, self.strings, self._runner = store, settings, strings, runner
        self.base: ClipParams | None = None
        self.axes = box([], "i2vs-axes")
        self.rows: list[AxisRow] = []
        self.add = button(
            strings("add_axis"), strings("add_axis_help"), act=lambda: self.set_axes([*self.entered_axes(), self._new_axis()])
        )
        self.message, self.fault = html_line("i2vs-told"), html_line("i2vs-message")
        self.run = button(strings(run), strings(f"{run}_help"), "i2vs-primary", act=self._begin)
        self.stop = button(strings("stop_cell"), strings("stop_cell_help"), "i2vs-stop", act=self._stop)
        self.stop.disabled = True
        self.report = PageLink(text=strings("open_report"), help=strings("open_report_help"))

    def use(self, params: ClipParams | None) -> None:
        """The base has changed."""
        self.base = params
        self._edited()

    def set_axes(self, axes: Iterable[tuple[str, str]]) -> None:
        """Show these axes, (field, values) of each, in place of the others."""
        self.rows = [AxisRow(field, values, self.strings, self._edited, self._remove) for field, values in axes]
        refill(self.axes, [row.widget for row in self.rows])
        self._edited()

    def entered_axes(self) -> list[tuple[str, str]]:
        """(field, values) of each axis, as they were entered."""
        return [(row.field.value, row.values.value) for row in self.rows]

    def given_axes(self) -> dict[str, Any]:
        """{field: its values, or the text of a range}.

        Raises:
            I2VLabError: a field has two axes.
        """
        axes: dict[str, Any] = {}
        for row in self.rows:
            if row.field.value in axes:
                raise I2VLabError(f"{row.field.value}: given twice; remove one of the two axes")
            axes[row.field.value] = row.given()
        return axes

    def _remove(self, row: AxisRow) -> None:
        self.set_axes([(one.field.value, one.values.value) for one in self.rows if one is not row])

    def _queue(self, definition: SweepLike, **more: Any) -> None:
        """Put it in the queue, where it is only once.

        Raises:
            I2VLabError: it is there already.
        """
        jobs = Jobs(self.store.database, self.settings)
        if any(job.sweep == definition.to_yaml() for job in jobs.active(self.kind)):
            raise I2VLabError(self.strings("queued_already"))
        add = jobs.add_tune if self.kind == "tune" else jobs.add_sweep
        add(definition, **more)
        self._runner.wake()

    def _offer_report(self, job: Job) -> None:
        """The report of a job that ended, or why there is none."""
        result = json.loads(job.result or "{}")
        name = result.get(self.kind)
        page = self.store.directory / f"{self.kind}s" / str(name) / "report.html"
        self.report.show(page if name and page.is_file() else None)
        problem = job.reason if job.state == "failed" else result.get("problem", "")
        self.fault.value = clips.error_line(problem, self.strings) if problem else ""

    def _new_axis(self) -> tuple[str, str]:
        """What another row begins with."""
        raise NotImplementedError

    def _edited(self) -> None:
        """An axis, or a value of one, is another now."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Run what is entered now."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Stop after the running clip."""
        raise NotImplementedError
