"""The studio's sweep tab: axes and their values, the plan, the grid that fills."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import STOPPED_BY_HAND, I2VLabError
from i2v_lab.jobs import JobRunner
from i2v_lab.metrics.registry import METRICS
from i2v_lab.settings import Settings
from i2v_lab.statistics.power import outlook
from i2v_lab.store import Store
from i2v_lab.store.jobs import Job, Jobs
from i2v_lab.sweep import Sweep, SweepPlan, plan_sweep
from i2v_lab.sweep.axes import PROMPTS
from i2v_lab.sweep.file import parse_sweep
from i2v_lab.widgets.studio import clips
from i2v_lab.widgets.studio.debounce import Debounced
from i2v_lab.widgets.studio.elements import Strip
from i2v_lab.widgets.studio.html import box, button, escape, html_line
from i2v_lab.widgets.studio.model_list import kind_of, standard
from i2v_lab.widgets.studio.step_player import StepPlayer
from i2v_lab.widgets.studio.strings import Strings

GRID_MAX = 120  # cells that the grid shows
FIRST = {"guidance_scale": "4, 9, 14", "seed": "0, 1"}  # the axes that the tab begins with


class AxisRow:
    """A row: which field, its values as in a sweep file, and a button that removes it."""

    def __init__(
        self, field: str, values: str, strings: Strings, changed: Callable[[], None], remove: Callable[[AxisRow], None]
    ) -> None:
        names = [(strings.label(name), name) for name in ClipParams.model_fields]
        self.field = widgets.Dropdown(options=names, value=field, tooltip=strings("axis"))
        self.values = widgets.Text(
            value=values, placeholder=strings.values(field), continuous_update=False, tooltip=strings("values_help")
        )  # fmt: skip
        out = button("✕", strings("remove_axis"), "i2vs-small", act=lambda: remove(self))

        def another(change: Any) -> None:
            self.values.placeholder = strings.values(change["new"])
            changed()

        self.field.observe(another, "value")
        self.values.observe(lambda _: changed(), "value")
        self.widget = box([self.field, self.values, out], "i2vs-axis", row=True)


class SweepTab:
    """The tab: axes on top, then the plan, then a grid with one card for each cell."""

    def __init__(
        self, store: Store, settings: Settings, strings: Strings, runner: JobRunner, restore: Callable[[RunRecord], None]
    ) -> None:
        """
        Args:
            restore: called with a run whose settings are to be shown in the form.
        """
        self.store, self.settings, self.strings, self._runner, self._restore = store, settings, strings, runner, restore
        self.base: ClipParams | None = None
        self.planned: SweepPlan | None = None
        self._job: Job | None = None  # the sweep that runs or waits
        self._seen: Any = None
        self._plan: Debounced[tuple[dict[str, Any], Job | None]] = Debounced(self._show_plan)
        self.name = widgets.Text(
            value="studio", description=strings("sweep_name"), continuous_update=False, tooltip=strings("sweep_name_help")
        )
        names = [(strings("asked_none"), ""), *((name.replace("_", " "), name) for name in METRICS)]
        self.metric = widgets.Dropdown(options=names, description=strings("asked"), tooltip=strings("asked_help"))
        self.metric.observe(lambda _: self._plan_again(), "value")
        self.axes = box([], "i2vs-axes")
        self.rows: list[AxisRow] = []
        add = button(strings("add_axis"), strings("add_axis_help"), act=lambda: self._add(self._unused(), ""))
        self.message = html_line("i2vs-told")
        self.run = button(strings("run_sweep"), strings("run_sweep_help"), "i2vs-primary", act=self._add_job)
        self.stop = button(strings("stop_cell"), strings("stop_cell_help"), "i2vs-stop", act=self._stop_after_cell)
        self.play = button(strings("play_grid"), strings("compare_help"), "i2vs-play", act=self._play)
        self.run.disabled = self.stop.disabled = self.play.disabled = True
        self.grid = Strip(columns=1, words={**strings.states(), "empty": ""})
        self.grid.on_open(self._open)
        self.player = StepPlayer(store, strings, self.grid)
        lead = html_line("i2vs-lead", value=escape(strings("sweep_lead")))
        top = box([self.name, self.metric, add], "i2vs-row", row=True)
        actions = box([self.run, self.stop, self.play], "i2vs-actions", row=True)
        self.widget = box([lead, self.axes, top, self.message, actions, self.grid, self.player.widget], "i2vs-sweep")
        for field, values in FIRST.items():
            self._add(field, values)

    def use(self, params: ClipParams | None) -> None:
        """The base has changed."""
        self.base = params
        self._plan_again()

    def show(self, job: Job | None) -> None:
        """The sweep that runs or waits; None where there is none."""
        self.stop.disabled = job is None or job.state != "running"
        ended, self._job = (self._job if job is None else None), job
        known = _known(job) if job else {}
        seen = job and (job.id, job.state, known.get("ran"), known.get("cell"))
        if seen != self._seen:  # not at every step
            self._seen = seen
            self._plan_again()
        if ended and (ended := self._runner.jobs.get(ended.id)) and ended.state == "failed":
            self.message.value = clips.error_line(ended.reason, self.strings)

    def _add(self, field: str, values: str) -> None:
        self.rows.append(AxisRow(field, values, self.strings, self._plan_again, self._remove))
        self.axes.children = [row.widget for row in self.rows]
        self._plan_again()

    def _remove(self, row: AxisRow) -> None:
        self.rows.remove(row)
        self.axes.children = [one.widget for one in self.rows]
        self._plan_again()

    def _unused(self) -> str:
        used = {row.field.value for row in self.rows}
        return next((name for name in ("num_inference_steps", "prompt", *ClipParams.model_fields) if name not in used), "seed")

    def _definition(self) -> dict[str, Any]:
        """The sweep as Sweep takes it."""
        axes: dict[str, Any] = {}
        for row in self.rows:
            if row.values.value.strip():
                if row.field.value in axes:
                    raise I2VLabError(f"{row.field.value}: given twice; remove one of the two axes")
                axes[row.field.value] = row.values.value
        kept = self.base.given() if self.base else {}
        base = {
            name: value for name, value in kept.items() if name not in axes or name in PROMPTS
        }  # an axis of a prompt replaces a word in it
        if "model" in axes and (kind := kind_of(kept.get("model", ""))):  # each model has its own defaults for what was not changed
            own = standard(kind)
            base = {name: value for name, value in base.items() if name not in own or value != own[name]}
        return {
            "name": re.sub(r"[^\w-]+", "-", self.name.value.strip(), flags=re.ASCII) or "studio",
            "base": base,
            "axes": axes,
            "metric": self.metric.value,
        }

    def _plan_again(self) -> None:
        self.run.disabled = True
        if self.base is None:
            self.message.value = escape(self.strings("base_wrong"))
            return
        with clips.faults_in(self.message, self.strings):
            self._plan.ask((self._definition(), self._job))

    def _add_job(self) -> None:
        if not self.planned:
            return
        with clips.faults_in(self.message, self.strings):
            Jobs(self.store.database, self.settings).add_sweep(self.planned.sweep, expected=self.planned.expected()[0])
            self._runner.wake()

    def _stop_after_cell(self) -> None:
        if self._job:
            self._runner.stop(self._job.id, STOPPED_BY_HAND, "cell")

    # In a thread of Debounced

    def _show_plan(self, asked: tuple[dict[str, Any], Job | None], is_last: Callable[[], bool]) -> None:
        definition, job = asked
        try:
            if job:
                planned = plan_sweep(parse_sweep(job.sweep), self.store, self.settings, sweep_id=_known(job).get("sweep", ""))
            elif definition["axes"]:
                planned = plan_sweep(Sweep(**definition), self.store, self.settings)
            else:
                raise I2VLabError("expected at least one axis with values")
        except I2VLabError as error:
            if is_last():
                self.planned, self.grid.items = None, []
                self.message.value = clips.error_line(error, self.strings)
            return
        if not is_last():
            return
        self.planned = planned
        self.run.disabled = not planned.to_run() or job is not None
        self.play.disabled = not any(item.state == "done" for item in planned.cells)
        line = self.strings.plan(planned.counts, len(planned.cells), planned.time(), planned.expected()[1])
        self.message.value = escape(f"{line}.{self.strings.can_show(outlook(*planned.settings(), planned.sweep.metric))}")
        self._fill(planned, job)

    def _fill(self, planned: SweepPlan, job: Job | None) -> None:
        last = planned.sweep.axis_names[-1:]
        names = list(dict.fromkeys(item.cell.labels[last[0]] for item in planned.cells)) if last else []
        columns = len(names) if len(planned.cells) % max(len(names), 1) == 0 and len(planned.sweep.axis_names) > 1 else 0
        now = _known(job).get("cell", 0) if job and job.state == "running" else 0
        items = []
        for item in planned.cells[:GRID_MAX]:
            label = ", ".join(f"{self.strings.label(axis)} {value}" for axis, value in item.cell.labels.items())
            status = "running" if item.cell.number == now and item.state != "done" else item.state.replace(" ", "_")
            record = self.store.get(item.run) if item.state == "done" else None
            clip = clips.clip_of(record, self.store) if record else None
            items.append({"id": item.run, "status": status, "caption": label, "title": f"{label}\n{item.reason}".strip(),
                          "note": item.reason, "poster": clips.poster(clip) if clip else b""})  # fmt: skip
        if items != self.grid.items:
            base = planned.cells[0].cell.params
            with self.grid.hold_sync():
                self.grid.columns, self.grid.shape = columns or min(len(items), 4), f"{base.width} / {base.height}"
                self.grid.items = items

    def _open(self, id: str) -> None:
        with clips.faults_in(self.message, self.strings):
            if record := self.store.get(id):
                self._restore(record)

    def _play(self) -> None:
        with clips.faults_in(self.message, self.strings):
            if self.planned:
                self.player.play([item.run for item in self.planned.cells if item.state == "done"])


def _known(job: Job) -> dict[str, Any]:
    """How far the sweep of a job is; empty before it runs."""
    return dict(json.loads(job.status or "{}"))
