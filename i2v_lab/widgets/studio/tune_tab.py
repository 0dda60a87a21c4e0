"""The studio's tune tab: values to search, a goal and a budget; what was found, and blind votes where people decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from i2v_lab.errors import I2VLabError
from i2v_lab.jobs import JobRunner
from i2v_lab.metrics.registry import METRICS
from i2v_lab.report.tune_sentences import sentences
from i2v_lab.report.words import Words
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.store.jobs import Job
from i2v_lab.store.opinions import Opinions
from i2v_lab.sweep.tune import Tune, TuneResult, parse_tune, run_tune
from i2v_lab.sweep.tune.goal import VOTES
from i2v_lab.widgets.blind import BlindVotes
from i2v_lab.widgets.studio import clips
from i2v_lab.widgets.studio.axis_rows import AxisTab
from i2v_lab.widgets.studio.debounce import Debounced
from i2v_lab.widgets.studio.html import box, button, described, escape, html_line, refill
from i2v_lab.widgets.studio.strings import Strings

METHODS = ("halving", "tpe", "nsga2", "grid", "random")
FIRST = {"guidance_scale": "3, 6, 9, 14", "scheduler": "ddim, euler-a"}  # the values that the tab begins with


class TuneTab(AxisTab):
    """The tab: values on top, then goal, limits and budget, then what was found."""

    kind = "tune"

    def __init__(
        self, store: Store, settings: Settings, strings: Strings, runner: JobRunner, use_winner: Callable[[Mapping[str, Any]], None]
    ) -> None:
        """
        Args:
            use_winner: called with the fields of the winner, to be shown in the form.
        """
        super().__init__(store, settings, strings, runner, "tune_run")
        self._use_winner = use_winner
        self._shown = ""  # the job whose result is shown
        self._winner: Mapping[str, Any] | None = None
        self._finder: Debounced[Job] = Debounced(self._show_result)
        ranked = [name for name, metric in METRICS.items() if metric.better is not None]
        names = [*((Words(strings.lang).in_line(name), name) for name in ranked), (strings("tune_votes"), VOTES)]
        self.goal = self._entry(widgets.Dropdown, "tune_goal", options=names, value="prompt_agreement")
        self.limits = self._entry(widgets.Text, "tune_limits", value="", placeholder="seconds_total <= 60", continuous_update=False)
        self.budget = self._entry(widgets.BoundedIntText, "tune_budget", value=60, min=2, max=100_000)
        self.method = self._entry(widgets.Dropdown, "tune_method", options=METHODS)
        self.found = html_line("i2vs-found")
        self.take = button(strings("tune_take"), strings("tune_take_help"), act=self._take)
        self.take.disabled = True
        self.votes = box([], "i2vs-votes")
        lead = html_line("i2vs-lead", value=escape(strings("tune_lead")))
        top = box([self.goal, self.method, self.budget, self.add], "i2vs-row", "i2vs-goal", row=True)
        actions = box([self.run, self.stop, self.take], "i2vs-actions", row=True)
        below = [actions, self.fault, self.votes, self.message, self.found, self.report]
        self.widget = box([lead, self.axes, top, self.limits, *below], "i2vs-tune")
        self.set_axes(FIRST.items())
        self.show(next(iter(runner.jobs.newest(1, kind="tune")), None))

    def _entry(self, kind: Any, name: str, **options: Any) -> Any:
        found = described(kind, self.strings(f"{name}_help"), description=self.strings(name), **options)
        found.observe(lambda _: self._edited(), "value")
        return found

    # Its entries

    def _new_axis(self) -> tuple[str, str]:
        return "num_inference_steps", ""

    def entered(self) -> dict[str, Any]:
        """What was entered."""
        return {
            "axes": self.entered_axes(),
            "goal": self.goal.value,
            "limits": self.limits.value,
            "budget": self.budget.value,
            "method": self.method.value,
        }

    def enter(self, given: Mapping[str, Any]) -> None:
        """Show what `entered` gave."""
        self.set_axes(given["axes"])
        for name in ("goal", "limits", "budget", "method"):
            getattr(self, name).value = given[name]

    def tune(self) -> Tune:
        """What is entered. Raises I2VLabError where something is wrong."""
        if self.base is None:
            raise I2VLabError(self.strings("base_wrong"))
        space = self.given_axes()
        base = {name: value for name, value in self.base.given().items() if name not in space and name != "seed"}
        limits = [part.strip() for part in self.limits.value.split(",") if part.strip()]
        return Tune(name="studio", base=base, space=space, goal=self.goal.value, limits=limits, budget={"clips": self.budget.value},
                    method=self.method.value, seed=max(self.base.seed, 0))  # fmt: skip

    def _edited(self) -> None:
        if self.base is None or not self.rows:
            return
        with clips.faults_in(self.message, self.strings):
            tune = self.tune()
            listed = all(axis.values for axis in tune.axes)
            count = len(tune.settings()) if listed else 0
            self.message.value = escape(self.strings("tune_settings").format(count=count, clips=3 * count)) if listed else ""

    # Running it

    def _begin(self) -> None:
        self.fault.value = ""
        with clips.faults_in(self.fault, self.strings):
            self._queue(self.tune())
            self._forget()

    def _forget(self) -> None:
        """What an earlier search found is no longer shown."""
        self.found.value, self._winner, self.take.disabled = "", None, True
        self.report.show(None)
        refill(self.votes, [])

    def _stop(self) -> None:
        for job in self._runner.jobs.active("tune"):
            self._runner.stop(job.id, self.strings("stop_cell"), "cell")

    def show(self, job: Job | None) -> None:
        """The tune that runs or waits; or the newest one that ended."""
        self.stop.disabled = job is None or job.state != "running"
        newest = job or next(iter(self._runner.jobs.newest(1, kind="tune")), None)
        if newest and newest.ended and newest.id != self._shown:
            self._shown = newest.id
            self._finder.ask(newest)

    def _show_result(self, job: Job, is_last: Callable[[], bool]) -> None:
        """What a job found: the search goes through the clips that are there, so a thread does it."""
        self._offer_report(job)
        with clips.faults_in(self.fault, self.strings):
            result = self._look(job)
            if is_last():
                self._say(result)
                self._ask(job, result)

    def _look(self, job: Job) -> TuneResult:
        return run_tune(parse_tune(job.sweep), self.store, settings=self.settings, make=False)

    def _say(self, result: TuneResult) -> None:
        self._winner = result.winner if result.outcome.complete else None
        self.take.disabled = self._winner is None
        lines = [line.zh if self.strings.lang == "zh" else line.en for line in sentences(result)]
        self.found.value = "".join(f"<p>{escape(line)}</p>" for line in lines)

    def _ask(self, job: Job, result: TuneResult) -> None:
        """Ask for votes, while some are needed. The clips that follow from them are made at once."""
        refill(self.votes, [])
        if result.pair:
            known = [result]  # the pair that is shown first is there already
            asked: list[BlindVotes] = []

            def pick() -> tuple[str, str] | None:
                seen = known.pop() if known else self._look(job)
                self._say(seen)
                if seen.pair is None:
                    self._queue(parse_tune(job.sweep))  # the next clips, or the report
                elif asked and not set(seen.pair) <= set(asked[0].runs["id"]):
                    asked[0].take(seen.table())  # the next clips were there already
                return seen.pair

            head = html_line("i2vs-lead", value=escape(self.strings("tune_ask")))
            asked.append(BlindVotes(result.table(), Opinions(self.store), pick=pick, language=self.strings.lang))
            self.votes.children = [head, *asked]

    def _take(self) -> None:
        if self._winner:
            self._use_winner(self._winner)
