"""run_tune: drives a search. Each round is made as sweeps, so clips are runs of the store, resumed and never made twice.

What is decided is a function of the file and of what the store has: nothing else is kept. A tune that is started again goes through its
rounds from the first one, finds their clips, and decides the same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from i2v_lab.clip.publish import partial_file, writing
from i2v_lab.clip.record import RunRecord
from i2v_lab.errors import Stop, SweepError
from i2v_lab.portable import replace as publish
from i2v_lab.rights import make_folder
from i2v_lab.settings import Settings, load_settings
from i2v_lab.store import Store
from i2v_lab.sweep.definition import Cell
from i2v_lab.sweep.file import parse_sweep
from i2v_lab.sweep.loop import run_sweep
from i2v_lab.sweep.status import SweepProgress
from i2v_lab.sweep.stop import SweepStop
from i2v_lab.sweep.sweep_plan import work
from i2v_lab.sweep.tune import ballots, methods, outside
from i2v_lab.sweep.tune.definition import Tune, named
from i2v_lab.sweep.tune.goal import figures
from i2v_lab.sweep.tune.outcome import Outcome, finalists, rankings
from i2v_lab.sweep.tune.planner import Planner
from i2v_lab.sweep.tune.race import Race, Round, Told
from i2v_lab.sweep.tune.rounds import of_cells, sweeps_of
from i2v_lab.sweep.tune.space import Setting, drawn

if TYPE_CHECKING:
    import pandas as pd

FOLDER, WINNER, FILE = "tunes", "winner.yaml", "tune.yaml"
OVER = "the budget is spent"
NOT_MADE = "the next clips are not made yet"
DRAWS = 1000  # random settings that are looked at for one that the planner lets through
OWN = ("image", "prompt", "negative_prompt", "seed")  # of a clip, not of a setting


class TuneProgress(SweepProgress):
    """A listener to a tune: as one to a sweep (each round is one or more), and it hears of each round."""

    def begins(self, number: int, made: Round) -> None:
        """Round `number`, from 1, begins."""

    def ended(self, number: int, told: Told) -> None:
        """What the round showed, once it is known who leaves."""


@dataclass(frozen=True)
class TuneResult:
    """What a run of a tune came to.

    Attributes:
        folder: where winner.yaml, tune.yaml and the report are, absolute.
        outcome: see Outcome.
        sweeps: {id of a sweep: number of its round, from 1}.
        pair: the runs of the two clips that people are asked about next, where the goal is votes and more are needed.
        stopped: why it ended early; "" where it did not.
    """

    tune: Tune
    folder: Path
    outcome: Outcome
    sweeps: dict[str, int] = field(default_factory=dict)
    pair: tuple[str, str] | None = None
    stopped: str = ""
    store: Store = field(repr=False, compare=False, default=None)  # type: ignore[assignment]

    @cached_property
    def winner(self) -> dict[str, Any] | None:
        """The fields of the winner, which winner.yaml has: a preset; None where there is none."""
        best = self.outcome.winner
        if best is None:
            return None
        return {name: value for name, value in self.tune.fields(best.setting).items() if name not in OWN}

    def table(self) -> pd.DataFrame:
        """One row a clip: the columns of Store.runs, with round (from 1), level (0 is the cheapest fidelity), setting (from 1) and final."""
        import pandas as pd

        parts = []
        for id, number in self.sweeps.items():
            made = self.outcome.rounds[number - 1].round if 0 < number <= len(self.outcome.rounds) else None
            if made is None:
                continue
            table = self.store.runs(sweep=id)
            places = of_cells(self.tune, made, self.outcome.settings)
            owners = [next(iter(places.get(key, [])), (-1, -1))[0] + 1 for key in cell_keys(self.store, id)]
            parts.append(table.assign(round=number, level=made.level, setting=owners, final=made.final))
        return (
            pd.concat(parts, ignore_index=True)
            if parts
            else self.store.runs().iloc[:0].assign(round=0, level=0, setting=0, final=False)
        )


def cell_keys(store: Store, sweep: str) -> list[str]:
    """The clips of a sweep's cells as they were asked for, in order; see `rounds.of_cells`."""
    text = (store.directory / "sweeps" / sweep / "sweep.yaml").read_text(encoding="utf-8")
    return [cell.params.model_dump_json() for cell in parse_sweep(text).cells()]


def folder_of(tune: Tune, store: Store) -> Path:
    """The folder of a tune: one for each definition."""
    return (store.directory / FOLDER / f"{tune.name}-{tune.definition()[:8]}").absolute()


def run_tune(
    tune: Tune,
    store: Store | None = None,
    *,
    settings: Settings | None = None,
    progress: SweepProgress | None = None,
    stop: SweepStop | None = None,
    make: bool = True,
) -> TuneResult:
    """Search the best setting. Started again with the same definition, it goes on where it was.

    Args:
        store, settings, stop: as for run_sweep. progress: a TuneProgress hears of rounds too.
        make: False: no clip is made; the search goes as far as its clips are there.

    Raises:
        SweepError: the tune is wrong, or no setting can meet the limits; nothing was made.
    """
    settings = settings or load_settings()
    store = store or Store(settings.output.directory)
    tune = tune.with_defaults(settings.model)
    if tune.method in ("tpe", "nsga2"):
        outside.check()
    return _TuneRun(tune, store, settings, progress or TuneProgress(), stop or SweepStop(), make).run()


class _TuneRun:
    """A run of a tune while it goes on."""

    def __init__(self, tune: Tune, store: Store, settings: Settings, progress: SweepProgress, stop: SweepStop, make: bool) -> None:
        self.tune, self.store, self.settings, self.progress, self.stop, self.make = tune, store, settings, progress, stop, make
        self.began = time.monotonic()
        self.left_out: dict[str, str] = {}
        self.planner = Planner(tune, store, settings)
        self.work, self.seconds, self.clips = 0.0, 0.0, 0  # of the clips so far
        self.extra = 0.0  # seconds of the clips that this round made
        self.sweeps: dict[str, int] = {}
        listed = all(axis.values for axis in tune.axes)
        self.possible, self.left_out = self.planner.possible(tune.settings()) if listed else ([], {})
        searched = self.possible if tune.method in ("halving", "grid") else []
        self.race = Race(searched, tune.goals, tune.bounds, levels=tune.levels(),
                         seed=tune.seed, finalists=tune.finalists, seeds=tune.seeds, price=self._price)  # fmt: skip

    def run(self) -> TuneResult:
        folder = folder_of(self.tune, self.store)
        if self.make:
            make_folder(folder)
            _write(folder, FILE, self.tune.to_yaml())
        chosen, stopped, complete = list[int](), "", False
        try:
            self._pilot()
            search = self._search(folder)
            chosen = self._drive(search)
            if not self.tune.by_votes:
                chosen = self._drive(methods.final(self.race, chosen))
            complete = self.race.pair is None
        except Stop as reason:
            stopped = str(reason)
            chosen = self._best_so_far()
            complete = stopped == OVER
        found, seeds = (
            finalists(self.race, chosen) if self.tune.goals else (ballots.finalists(self.race, chosen, self._ballots()), ())
        )
        race, votes = self.race, len(self._ballots()) if self.tune.by_votes else 0
        ranks = rankings(race) if self.tune.goals else ()
        whole = self._whole_grid(len(seeds) or self.tune.seeds)
        outcome = Outcome(found, seeds, race.noise, complete, self.clips, self.seconds, *whole, ranks, tuple(race.told), self.left_out,
                          tuple(race.settings), votes)  # fmt: skip
        result = TuneResult(self.tune, folder, outcome, self.sweeps, self._pair(), stopped, self.store)
        if complete and self.make:
            self._write_winner(result)
        return result

    def _search(self, folder: Path) -> Generator[Round, None, list[int]]:
        tune, race = self.tune, self.race
        if tune.by_votes:
            return ballots.search(race, tune.budget.votes, self._ballots)
        if tune.method == "halving":
            return methods.halving(race)
        if tune.method == "grid":
            return methods.grid(race)
        if tune.method == "random":
            return methods.drawn(race, self._draw)
        return outside.search(race, tune.method, tune.axes, tune.model, folder if self.make else None, self._may)

    def _drive(self, search: Generator[Round, None, list[int]]) -> list[int]:
        """Make the rounds that a search asks for. Returns what it ends with."""
        try:
            made = next(search)
            while True:
                number = len(self.race.told) + 1
                if isinstance(self.progress, TuneProgress):
                    self.progress.begins(number, made)
                self.race.add(made, self._make(made, number))
                before = self.race.told[-1]
                try:
                    made = next(search)
                finally:
                    if isinstance(self.progress, TuneProgress):
                        self.progress.ended(number, before)
        except StopIteration as end:
            return list(end.value)

    def _make(self, made: Round, number: int) -> dict[tuple[int, int], dict[str, float]]:
        """The figures of the clips of a round, {(setting, seed): figures}; clips that are not there are made."""
        known = (
            {setting: why for setting in made.settings if (why := self.planner.breaks(self.race.settings[setting], self.clips))}
            if number > 1
            else {}
        )
        self.left_out |= {named(self.race.settings[setting]): why for setting, why in known.items()}
        own = replace(made, settings=tuple(setting for setting in made.settings if setting not in known))
        places = of_cells(self.tune, own, self.race.settings)
        found: dict[tuple[int, int], dict[str, float]] = {}
        for sweep in sweeps_of(self.tune, own, self.race.settings, number):
            result = self._run_sweep(sweep)
            self.sweeps[result.id] = number
            table = result.table()
            values = figures(table, self.tune.figures)
            for cell, row, id in zip(sweep.cells(), values.to_dict("records"), table["id"], strict=True):
                for place in places[cell.params.model_dump_json()]:
                    found[place] = {str(name): float(value) for name, value in row.items()}
                    self.race.runs[place[0], made.level, place[1]] = str(id)
                if not math.isnan(seconds := float(row["seconds"])):
                    self.seconds, self.work = self.seconds + seconds, self.work + work(cell.params)
            self.clips += int((table["status"] != "planned").sum())
            if result.stopped:  # what there is counts, for what is said of a search that is not at its end
                there = {place: values_of for place, values_of in found.items() if not math.isnan(values_of["seconds"])}
                self.race.figures |= {(setting, made.level, seed): values_of for (setting, seed), values_of in there.items()}
                raise Stop(result.stopped)
        self.race.spent = self._spent()
        self.extra = 0.0
        self._check_values(found)
        return found

    def _run_sweep(self, sweep: Any) -> Any:
        stop = self.stop
        if not self.make:
            stop = SweepStop()
            stop.ask("cell", NOT_MADE)
        options: dict[str, Any] = {"settings": self.settings, "progress": self.progress, "stop": stop}
        result = run_sweep(sweep, self.store, **options, on_cell=self._watch_budget)
        if (
            result.counts.get("stopped") and not result.stopped and self.make
        ):  # a clip that was cut short is made, as if it had never begun
            result = run_sweep(sweep, self.store, **options, on_cell=self._watch_budget, retry="stopped")
        return result

    def _watch_budget(self, cell: Cell, record: RunRecord) -> None:
        """Ends the search where the time is over; clips are counted before they are made."""
        budget = self.tune.budget
        made = record.seconds.get("total", 0.0) - record.seconds.get("load", 0.0)
        self.extra += made
        if budget.hours is not None and time.monotonic() - self.began >= 3600 * budget.hours:
            raise Stop(OVER)
        if budget.device_seconds is not None and self.seconds + self.extra >= budget.device_seconds:
            raise Stop(OVER)

    def _check_values(self, found: Mapping[tuple[int, int], Mapping[str, float]]) -> None:
        """Raises SweepError where no clip has a figure that is searched for."""
        for goal in self.tune.goals:
            if found and all(math.isnan(own.get(goal.figure, math.nan)) for own in found.values()):
                raise SweepError(f"goal: none of the {len(found)} clips of this round has {goal.figure}; "
                                 "`i2v-lab runs` shows which failed, and docs/metrics.md when a metric has no value")  # fmt: skip

    # The settings

    def _may(self, setting: Setting) -> bool:
        return self.tune.keeps(setting) and not self.planner.breaks(setting, self.clips)

    def _draw(self, luck: Any) -> Setting:
        for _ in range(DRAWS):
            setting = drawn(self.tune.axes, self.tune.model, luck)
            if self._may(setting):
                return setting
        raise SweepError(f"limits: none of {DRAWS} settings that were drawn can meet them and where; change them")

    # The budget

    def _rate(self) -> float:
        """Seconds for a unit of work; 0 before the first clip."""
        return self.seconds / self.work if self.work else 0.0

    def _price(self, setting: int, level: int) -> float:
        budget, found = self.tune.budget, 0.0
        if budget.clips is not None:
            found = 1 / budget.clips
        timed = [second for second in (budget.device_seconds, budget.hours and 3600 * budget.hours) if second]
        if timed:
            seconds = self._rate() * work(self.tune.params(self.race.settings[setting], level))
            found = max(found, seconds / min(timed))
        return found

    def _spent(self) -> float:
        budget = self.tune.budget
        shares = [budget.clips and self.clips / budget.clips, budget.device_seconds and self.seconds / budget.device_seconds,
                  budget.hours and (time.monotonic() - self.began) / 3600 / budget.hours]  # fmt: skip
        return max(share for share in shares if share is not None)

    def _pilot(self) -> None:
        """Where time is the budget, one clip says what a clip takes."""
        budget = self.tune.budget
        if (budget.device_seconds is not None or budget.hours is not None) and self.race.settings:
            self._make(Round((0,), (self.tune.seed,), 0), 0)

    def _whole_grid(self, seeds: int) -> tuple[float, float]:
        """(clips, seconds) of all settings of a list at full quality, with so many seeds."""
        if not self.possible:
            return math.nan, math.nan
        amount = sum(work(self.tune.params(setting)) for setting in self.possible)
        return float(len(self.possible) * seeds), self._rate() * amount * seeds

    def _best_so_far(self) -> list[int]:
        """The best settings by what there is."""
        race = self.race
        for level in range(race.full, -1, -1):
            there = [number for number in range(len(race.settings)) if race.seeds_of([number], level)]
            if there and self.tune.goals:
                return race.order([one for one in there if one not in race.broken(there, level)], level)[: race.finalists]
        return []

    # Votes

    def _ballots(self) -> list[ballots.Ballot]:
        return ballots.counted(self.race, self.store)[: self.tune.budget.votes]

    def _pair(self) -> tuple[str, str] | None:
        """The runs of the settings that are asked about next, with the newest seed that both have."""
        if (pair := self.race.pair) is None:
            return None
        seed = self.race.seeds_of(pair, self.race.full)[-1]
        left, right = (self.race.runs[setting, self.race.full, seed] for setting in pair)
        return left, right

    def _write_winner(self, result: TuneResult) -> None:
        if result.winner is not None:
            head = f"# the winner of {self.tune.name}: i2v-lab generate PICTURE PROMPT --preset {WINNER}\n"
            _write(result.folder, WINNER, head + yaml.safe_dump(result.winner, sort_keys=False, allow_unicode=True))
        else:
            (result.folder / WINNER).unlink(missing_ok=True)


def _write(folder: Path, name: str, text: str) -> None:
    stem, _, ending = name.rpartition(".")
    with partial_file(folder, stem, ending) as part, writing(folder):
        part.write_text(text, encoding="utf-8")
        publish(part, folder / name)
