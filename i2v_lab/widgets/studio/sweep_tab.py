"""The studio's sweep tab: axes and their values, the plan, the grid that fills."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
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
from i2v_lab.store.jobs import Job
from i2v_lab.sweep import Sweep, SweepPlan, plan_sweep
from i2v_lab.sweep.axes import PROMPTS
from i2v_lab.sweep.file import parse_sweep
from i2v_lab.widgets.studio import clips
from i2v_lab.widgets.studio.axis_rows import AxisTab
from i2v_lab.widgets.studio.debounce import Debounced
from i2v_lab.widgets.studio.elements import Strip
from i2v_lab.widgets.studio.html import box, button, classed, described, escape, html_line, refill
from i2v_lab.widgets.studio.model_list import kind_of, standard
from i2v_lab.widgets.studio.step_player import StepPlayer
from i2v_lab.widgets.studio.strings import Strings

ASK_CLIPS, ASK_SECONDS = 50, 3600.0  # a sweep of more than this is confirmed before it runs
GRID_MAX = 120  # cells that the grid shows
FIRST = {"guidance_scale": "4, 9, 14", "seed": "0, 1"}  # the axes that the tab begins with


class SweepTab(AxisTab):
    """The tab: axes on top, then the plan, then a grid with one card for each cell."""

    kind = "sweep"

    def __init__(
        self,
        store: Store,
        settings: Settings,
        strings: Strings,
        runner: JobRunner,
        restore: Callable[[RunRecord], None],
        changed: Callable[[], None],
    ) -> None:
        """
        Args:
            restore: called with a run whose settings are to be shown in the form. changed: called after each change of an entry.
        """
        super().__init__(store, settings, strings, runner, "run_sweep")
        self._restore, self._changed = restore, changed
        self._job: Job | None = None  # the sweep that runs or waits
        self._seen: Any = None
        self._plan: Debounced[tuple[dict[str, Any], Job | None]] = Debounced(self._show_plan)
        self._starter: Debounced[dict[str, Any]] = Debounced(self._start)
        self._done: list[str] = []  # the runs of the grid
        self.name = described(
            widgets.Text, strings("sweep_name_help"), value="studio", description=strings("sweep_name"), continuous_update=False
        )
        names = [(strings("asked_none"), ""), *((name.replace("_", " "), name) for name in METRICS)]
        self.metric = described(widgets.Dropdown, strings("asked_help"), options=names, description=strings("asked"))
        for entry in (classed(self.name, "i2vs-sweep-name"), self.metric):
            entry.observe(lambda _: self._edited(), "value")
        self.play = button(strings("play_grid"), strings("compare_help"), "i2vs-play", act=self._play)
        self.play.disabled = True
        self.confirm = box([], "i2vs-confirm")
        self._ask(None)
        self.grid = Strip(columns=1, words={**strings.states(), "empty": ""})
        self.grid.on("open", self._open)
        self.player = StepPlayer(store, strings, self.grid)
        self.widget = self._layout()
        self.set_axes(FIRST.items())
        for newest in runner.jobs.newest(1, kind="sweep"):
            if newest.ended:
                self._offer_report(newest)

    def _layout(self) -> Any:
        """What may grow or vanish is below the buttons: nothing moves them."""
        lead = html_line("i2vs-lead", value=escape(self.strings("sweep_lead")))
        top = box([self.name, self.metric, self.add], "i2vs-row", row=True)
        actions = box([self.run, self.stop, self.play], "i2vs-actions", row=True)
        below = [actions, self.confirm, self.fault, self.message, self.report, self.grid, self.player.widget]
        return box([lead, self.axes, top, *below], "i2vs-sweep")

    def show(self, job: Job | None) -> None:
        """The sweep that runs or waits; None where there is none."""
        self.stop.disabled = job is None or job.state != "running"
        ended, self._job = (self._job if job is None else None), job
        known = _known(job) if job else {}
        seen = job and (job.id, job.state, known.get("ran"), known.get("cell"))
        if seen != self._seen:  # not at every step
            self._seen = seen
            self._plan_again()
        if ended and (last := self._runner.jobs.get(ended.id)) and last.ended:
            self._offer_report(last)

    # Its entries

    def entered(self) -> dict[str, Any]:
        """What was entered: name, metric and axes, a list of (field, text)."""
        return {"name": self.name.value, "metric": self.metric.value, "axes": self.entered_axes()}

    def enter(self, given: Mapping[str, Any]) -> None:
        """Show what `entered` gave; what is no field or no text is left out."""
        if isinstance(name := given.get("name"), str):
            self.name.value = name
        if given.get("metric") in METRICS:
            self.metric.value = given["metric"]
        pairs = [pair for pair in given.get("axes") or () if isinstance(pair, list | tuple) and len(pair) == 2]
        if axes := [(field, str(values)) for field, values in pairs if field in ClipParams.model_fields]:
            self.set_axes(axes)

    def type_in(self, name: str | None, values: Mapping[str, str]) -> None:
        """Entries that the page has, and that may come later by themselves; values: by the number of their row."""
        if name is not None:
            self.name.value = name
        for number, text in values.items():
            if number.isdecimal() and int(number) < len(self.rows):
                self.rows[int(number)].values.value = text

    def use_pictures(self, paths: Sequence[Path]) -> None:
        """An axis of pictures; the axes that the tab begins with go, others stay."""
        others = [(field, values) for field, values in self.entered_axes() if field != "image" and FIRST.get(field) != values]
        self.set_axes([("image", "\n".join(map(str, paths))), *others])

    def _new_axis(self) -> tuple[str, str]:
        used = {row.field.value for row in self.rows}
        return next((name for name in ("num_inference_steps", "prompt", *ClipParams.model_fields) if name not in used), "seed"), ""

    def _definition(self) -> dict[str, Any]:
        """The sweep as Sweep takes it."""
        axes = self.given_axes()
        if not axes:
            raise I2VLabError("expected at least one axis with values; add one")
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

    def _edited(self) -> None:
        self._ask(None)
        self._changed()
        self._plan_again()

    def _plan_again(self) -> None:
        if self.base is None:
            self.message.value = escape(self.strings("base_wrong"))
            return
        with clips.faults_in(self.message, self.strings):
            self._plan.ask(({} if self._job else self._definition(), self._job))

    # Running it

    def _begin(self) -> None:
        """Run what is entered now. Its plan may take seconds, so a thread makes it."""
        self.fault.value = ""
        with clips.faults_in(self.fault, self.strings):
            if self.base is None:
                raise I2VLabError(self.strings("base_wrong"))
            self._starter.ask(self._definition())

    def _start(self, definition: dict[str, Any], _: Callable[[], bool]) -> None:
        with clips.faults_in(self.fault, self.strings):
            planned = plan_sweep(Sweep(**definition), self.store, self.settings)
            if len(planned.to_run()) > ASK_CLIPS or (planned.expected()[0] or 0.0) > ASK_SECONDS:
                self._ask(planned)
            else:
                self._add_job(planned)

    def _ask(self, planned: SweepPlan | None) -> None:
        """Ask whether a large sweep shall run; None: ask nothing."""
        self.confirm.layout.display = None if planned else "none"
        refill(self.confirm, self._question(planned) if planned else [])

    def _question(self, planned: SweepPlan) -> list[Any]:
        count, size = len(planned.to_run()), planned.expected()[1]
        took = (
            self.strings("confirm_unknown")
            if size is None
            else self.strings("confirm_time").format(time=planned.time(), size=size / 1e6)
        )
        text = self.strings("confirm").format(count=count, took=took)

        def make() -> None:
            with clips.faults_in(self.fault, self.strings):
                self._add_job(planned)

        yes = button(self.strings("confirm_yes").format(count=count), self.strings("run_sweep_help"), "i2vs-primary", act=make)
        no = button(self.strings("confirm_no"), self.strings("confirm_no_help"), act=lambda: self._ask(None))
        return [html_line(value=f'<span role="alert">{escape(text)}</span>'), box([yes, no], "i2vs-actions", row=True)]

    def _add_job(self, planned: SweepPlan) -> None:
        self._ask(None)
        self._queue(planned.sweep, expected=planned.expected()[0])

    def _stop(self) -> None:
        if self._job:
            self._runner.stop(self._job.id, STOPPED_BY_HAND, "cell")

    # In a thread of Debounced

    def _show_plan(self, asked: tuple[dict[str, Any], Job | None], is_last: Callable[[], bool]) -> None:
        definition, job = asked
        try:
            sweep, id = (parse_sweep(job.sweep), _known(job).get("sweep", "")) if job else (Sweep(**definition), "")
            planned = plan_sweep(sweep, self.store, self.settings, sweep_id=id)
        except I2VLabError as error:
            if is_last():
                self.grid.items = []
                self.message.value = clips.error_line(error, self.strings)
            return
        if not is_last():
            return
        self._done = [item.run for item in planned.cells if item.state == "done"]
        self.play.disabled = not self._done
        line = self.strings.plan(planned.counts, len(planned.cells), planned.time(), planned.expected()[1])
        self.message.value = escape(f"{line}.{self.strings.can_show(outlook(*planned.settings(), planned.sweep.metric))}")
        self._fill(planned, job)

    def _fill(self, planned: SweepPlan, job: Job | None) -> None:
        last = planned.sweep.axis_names[-1:]
        names = list(dict.fromkeys(item.cell.labels[last[0]] for item in planned.cells)) if last else []
        columns = len(names) if len(planned.cells) % max(len(names), 1) == 0 and len(planned.sweep.axis_names) > 1 else 0
        known = _known(job) if job and job.state == "running" else {}
        now = {one["cell"] for one in known.get("workers", ())} or {known.get("cell", 0)}
        items = []
        for item in planned.cells[:GRID_MAX]:
            label = ", ".join(f"{self.strings.label(axis)} {value}" for axis, value in item.cell.labels.items())
            status = "running" if item.cell.number in now and item.state != "done" else item.state.replace(" ", "_")
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
            self.player.play(self._done)


def _known(job: Job) -> dict[str, Any]:
    """How far the sweep of a job is; empty before it runs."""
    return dict(json.loads(job.status or "{}"))
