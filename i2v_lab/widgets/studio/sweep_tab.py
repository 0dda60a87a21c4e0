"""The studio's sweep tab: axes and their values, the plan, the grid that fills."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import I2VLabError
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, SweepPlan, plan
from i2v_lab.sweep.axes import PROMPTS
from i2v_lab.sweep.planning import duration
from i2v_lab.widgets.studio import clips
from i2v_lab.widgets.studio.follow import Follower
from i2v_lab.widgets.studio.front import Strip
from i2v_lab.widgets.studio.strings import Words
from i2v_lab.widgets.studio.text import box, button, escape, html_line
from i2v_lab.widgets.studio.worker import Job, Worker

GRID_MAX = 120  # cells that the grid shows
FIRST = {"guidance_scale": "4, 9, 14", "seed": "0, 1"}  # the axes that the tab begins with


class Axis:
    """A row: which field, its values as a sweep file has them, and a button that takes it out."""

    def __init__(self, field: str, values: str, words: Words, changed: Callable[[], None], remove: Callable[[Axis], None]) -> None:
        names = [(words.label(name), name) for name in ClipParams.model_fields]
        self.field = widgets.Dropdown(options=names, value=field, tooltip=words("axis"))
        self.values = widgets.Text(
            value=values, placeholder=words.values(field), continuous_update=False, tooltip=words("values_help")
        )  # fmt: skip
        out = button("✕", words("remove_axis"), "i2vs-small")
        out.on_click(lambda _: remove(self))

        def another(change: Any) -> None:
            self.values.placeholder = words.values(change["new"])
            changed()

        self.field.observe(another, "value")
        self.values.observe(lambda _: changed(), "value")
        self.widget = box([self.field, self.values, out], "i2vs-axis", row=True)


class Sweeping:
    """The tab.

    Args:
        restore: called with a run whose settings are to be shown in the controls.
    """

    def __init__(self, store: Store, settings: Settings, words: Words, work: Worker, restore: Callable[[RunRecord], None]) -> None:
        self.store, self.settings, self.words, self._worker, self._restore = store, settings, words, work, restore
        self.base: ClipParams | None = None
        self.planned: SweepPlan | None = None
        self._job: Job | None = None
        self._where: Any = None
        self.name = widgets.Text(
            value="studio", description=words("sweep_name"), continuous_update=False, tooltip=words("sweep_name_help")
        )
        self.axes = box([], "i2vs-axes")
        self.rows: list[Axis] = []
        add = button(words("add_axis"), words("add_axis_help"))
        add.on_click(lambda _: self._add(self._unused(), ""))
        self.told = html_line("i2vs-told")
        self.run = button(words("run_sweep"), words("run_sweep_help"), "i2vs-primary")
        self.run.on_click(lambda _: self._put())
        self.stop = button(words("stop_cell"), words("stop_cell_help"), "i2vs-stop")
        self.stop.on_click(lambda _: work.stop("cell"))
        self.play = button(words("play_grid"), words("compare_help"), "i2vs-play")
        self.play.on_click(lambda _: self._compare())
        self.run.disabled = self.stop.disabled = self.play.disabled = True
        self.grid = Strip(columns=1, words={**words.states(), "empty": ""})
        self.grid.on_open(self._open)
        self.player = box([], "i2vs-player-box")
        self.close = button("✕", words("close"), "i2vs-small")
        self.close.on_click(lambda _: self._close_player())
        lead = html_line("i2vs-lead")
        lead.value = escape(words("sweep_lead"))
        top = box([self.name, add], "i2vs-row", row=True)
        actions = box([self.run, self.stop, self.play], "i2vs-actions", row=True)
        self.widget = box([lead, self.axes, top, self.told, actions, self.grid, self.player], "i2vs-sweep")
        self._planner: Follower[tuple[dict[str, Any], Job | None]] = Follower(self._look)
        for field, values in FIRST.items():
            self._add(field, values)

    def use(self, params: ClipParams | None) -> None:
        """The base has changed."""
        self.base = params
        self._changed()

    def on_job(self, job: Job) -> None:
        """On the worker's thread."""
        mine = job.sweep is not None
        self.stop.disabled = not (mine and job.state == "running")
        if mine:
            self._job = job
            standing = job.standing
            if (where := (job.state, standing and (standing.ran, standing.cell))) != self._where:  # not at every step
                self._where = where
                self._ask()
            if job.error:
                self.told.value = clips.error_line(job.error, self.words)

    def _add(self, field: str, values: str) -> None:
        self.rows.append(Axis(field, values, self.words, self._changed, self._remove))
        self.axes.children = [row.widget for row in self.rows]
        self._changed()

    def _remove(self, row: Axis) -> None:
        self.rows.remove(row)
        self.axes.children = [one.widget for one in self.rows]
        self._changed()

    def _unused(self) -> str:
        used = {row.field.value for row in self.rows}
        return next((name for name in ("num_inference_steps", "prompt", *ClipParams.model_fields) if name not in used), "seed")

    def _definition(self) -> dict[str, Any]:
        """The sweep as Sweep takes it."""
        axes: dict[str, Any] = {}
        for row in self.rows:
            if row.values.value.strip():
                if row.field.value in axes:
                    raise I2VLabError(f"{row.field.value}: stands twice; take one of the two out")
                axes[row.field.value] = row.values.value
        kept = self.base.plain() if self.base else {}
        base = {
            name: value for name, value in kept.items() if name not in axes or name in PROMPTS
        }  # a word of a prompt is replaced
        return {"name": re.sub(r"[^\w-]+", "-", self.name.value.strip(), flags=re.ASCII) or "studio", "base": base, "axes": axes}

    def _changed(self) -> None:
        if not hasattr(self, "_planner"):
            return
        self._job = None if self._job and self._job.state == "over" else self._job
        self._ask()

    def _ask(self) -> None:
        self.run.disabled = True
        if self.base is None:
            self.told.value = escape(self.words("base_wrong"))
            return
        try:
            self._planner.ask((self._definition(), self._job))
        except I2VLabError as error:
            self.told.value = clips.error_line(error, self.words)

    def _put(self) -> None:
        if self.planned:
            job = Job(self.base or self.planned.cells[0].cell.params, self.store, self.settings, sweep=self.planned.sweep)
            self._worker.put(job)

    # On the follower's thread

    def _look(self, asked: tuple[dict[str, Any], Job | None], current: Callable[[], bool]) -> None:
        definition, job = asked
        try:
            if job and job.sweep and job.state != "over":
                planned = plan(job.sweep, self.store, self.settings, sweep_id=job.standing.sweep if job.standing else "")
            else:
                if not definition["axes"]:
                    raise I2VLabError("expected at least one axis with values")
                planned = plan(Sweep(**definition), self.store, self.settings)
        except I2VLabError as error:
            if current():
                self.planned, self.grid.items = None, []
                self.told.value = clips.error_line(error, self.words)
            return
        if not current():
            return
        self.planned = planned
        self.run.disabled = not planned.to_run() or (job is not None and job.state != "over")
        self.play.disabled = not any(item.state == "done" for item in planned.cells)
        seconds, size = planned.expected()
        self.told.value = escape(self.words.plan(planned.counts, len(planned.cells), seconds, size, duration))
        self._fill(planned, job)

    def _fill(self, planned: SweepPlan, job: Job | None) -> None:
        last = planned.sweep.axis_names[-1:]
        names = list(dict.fromkeys(item.cell.labels[last[0]] for item in planned.cells)) if last else []
        columns = len(names) if len(planned.cells) % max(len(names), 1) == 0 and len(planned.sweep.axis_names) > 1 else 0
        now = job.standing.cell if job and job.standing and job.state == "running" else 0
        items = []
        for item in planned.cells[:GRID_MAX]:
            label = ", ".join(f"{self.words.label(axis)} {value}" for axis, value in item.cell.labels.items())
            status = "running" if item.cell.number == now and item.state != "done" else item.state.replace(" ", "_")
            one = {
                "id": item.run,
                "status": status,
                "caption": label,
                "title": f"{label}\n{item.reason}".strip(),
                "note": item.reason,
                "poster": b"",
            }
            if item.state == "done" and (record := self.store.get(item.run)) and (clip := clips.clip_of(record, self.store)):
                one["poster"] = clips.poster(clip)
            items.append(one)
        if items != self.grid.items:
            base = planned.cells[0].cell.params
            with self.grid.hold_sync():
                self.grid.columns, self.grid.shape = columns or min(len(items), 4), f"{base.width} / {base.height}"
                self.grid.items = items

    def _open(self, id: str) -> None:
        try:
            record = self.store.get(id)
        except I2VLabError as error:
            self.told.value = clips.error_line(error, self.words)
            return
        if record:
            self._restore(record)

    def _compare(self) -> None:
        from i2v_lab.widgets.studio.showing import player

        if self.planned:
            ids = [item.run for item in self.planned.cells if item.state == "done"]
            try:
                shown = player(self.store, ids)
            except I2VLabError as error:
                self.told.value = clips.error_line(error, self.words)
                return
            self._close_player()
            self.grid.layout.display = "none"
            self.player.children = [box([self.close], "i2vs-row", "i2vs-close", row=True), shown]

    def _close_player(self) -> None:
        for child in self.player.children[1:]:
            child.close()
        self.player.children = []
        self.grid.layout.display = None
