"""Race: what is known of the settings so far, and who leaves. Numbers only: no clip is made here."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from i2v_lab.statistics.columns import Numbers
from i2v_lab.statistics.shuffles import half_width
from i2v_lab.sweep.tune.goal import Goal, Limit
from i2v_lab.sweep.tune.space import Setting

ALPHA = 0.05
# Chances above which a search ends because settings do not differ: of several rounds, of the only one, and before the last one.
LIKELY, LIKELY_ALONE, LIKELY_BEFORE = 0.1, 0.2, 0.5
DRAWS = 500  # of the shuffles that ask whether settings differ at all
ROUNDING = 1e-9
SMOOTH_ABOVE, NEIGHBOUR = 12, 0.3  # settings above which neighbours count, and how much (experiments/tune_truth.py)

Figures = Mapping[str, float]
"""{figure: value} of one clip, NaN where it has none; and `seconds`."""


@dataclass(frozen=True)
class Round:
    """Clips to make: each of these settings with each of these seeds.

    Attributes:
        settings: numbers of settings. level: of the fidelity; the last one is full quality.
        final: whether it is the comparison of the finalists.
    """

    settings: tuple[int, ...]
    seeds: tuple[int, ...]
    level: int
    final: bool = False


@dataclass
class Told:
    """What a round showed.

    Attributes:
        worse: settings that left because they are worse, or break a limit, {number: why}. dropped: because the next round has no room for them.
        p: of the shuffles over all settings of the round: whether any differ; NaN where it had one seed.
    """

    round: Round
    worse: dict[int, str] = field(default_factory=dict)
    dropped: tuple[int, ...] = ()
    p: float = math.nan


class Race:
    """The settings of a tune and their figures.

    Attributes:
        settings: all that were taken up, in order.
        levels: how many fidelities there are.
        figures: {(setting, level, seed): figures} of the clips so far.
        told: the rounds so far.
        spent: of the budget, 1 is all of it.
        noise: whether the search ended because nothing can be told apart.
        runs: {(setting, level, seed): id of its run}. pair: the settings that people are asked about next, where more votes are needed.
    """

    def __init__(
        self, settings: Sequence[Setting], goals: Sequence[Goal], limits: Sequence[Limit] = (), *, levels: int = 1, seed: int = 0,
        finalists: int = 3, seeds: int = 2, price: Callable[[int, int], float],
    ) -> None:  # fmt: skip
        """
        Args:
            price: of a clip of (setting, level), as a share of the budget.
            seeds: of each setting that is tried without a promotion.
        """
        self.settings = list(settings)
        self.goals, self.limits, self.levels, self.price = tuple(goals), tuple(limits), levels, price
        self.seed, self.finalists, self.seeds = seed, finalists, seeds
        self.figures: dict[tuple[int, int, int], Figures] = {}
        self.told: list[Told] = []
        self.spent, self.noise = 0.0, False
        self.runs: dict[tuple[int, int, int], str] = {}
        self.pair: tuple[int, int] | None = None
        self._next_seed = seed

    @property
    def full(self) -> int:
        """The level of full quality."""
        return self.levels - 1

    def fresh(self, count: int) -> tuple[int, ...]:
        """Seeds that no clip had yet."""
        first, self._next_seed = self._next_seed, self._next_seed + count
        return tuple(range(first, first + count))

    def cost(self, settings: Sequence[int], level: int) -> float:
        """Of one seed of these settings."""
        return sum(self.price(setting, level) for setting in settings)

    def affords(self, settings: Sequence[int], level: int, share: float) -> int:
        """How many seeds of these settings a share of the budget pays for."""
        return math.floor(share / max(self.cost(settings, level), 1e-12) + ROUNDING)

    def add(self, made: Round, figures: Mapping[tuple[int, int], Figures]) -> Told:
        """Take in what a round made, {(setting, seed): figures}."""
        for (setting, seed), own in figures.items():
            self.figures[setting, made.level, seed] = own
        told = Told(made)
        if len(made.seeds) > 1 and len(made.settings) > 1:
            told.p = differ(self.score(self.table(made.settings, made.level, made.seeds)))
        self.told.append(told)
        return told

    def seeds_of(self, settings: Sequence[int], level: int) -> tuple[int, ...]:
        """The seeds that all of these settings were made with."""
        own = [{seed for number, at, seed in self.figures if (number, at) == (setting, level)} for setting in settings]
        return tuple(sorted(set.intersection(*own))) if own else ()

    def table(self, settings: Sequence[int], level: int, seeds: Sequence[int]) -> Numbers:
        """(settings, seeds, goals), more is better. A clip without a value counts as the worst one."""
        rows = [[[self.figures.get((setting, level, seed), {}).get(goal.figure, math.nan) * (1 if goal.up else -1) for goal in self.goals]
                 for seed in seeds] for setting in settings]  # fmt: skip
        found = np.array(rows, np.float64).reshape(len(settings), len(seeds), len(self.goals))
        for place in range(len(self.goals)):
            own = found[..., place]
            known = own[~np.isnan(own)]
            own[np.isnan(own)] = known.min() if known.size else 0.0
        return found

    def score(self, table: Numbers) -> Numbers:
        """(settings, seeds): the goal; of several, their mean, each as a share of the range of the settings' means."""
        if table.shape[-1] == 1:
            return np.asarray(table[..., 0])
        means = table.mean(1)
        span = means.max(0) - means.min(0)
        return np.asarray(((table - means.min(0)) / np.where(span > 0, span, 1)).mean(-1))

    def order(self, settings: Sequence[int], level: int) -> list[int]:
        """The settings, the best first: of several goals, those that no other beats come first.

        Of many settings with few seeds, the means of a setting's neighbours count too.
        """
        seeds = self.seeds_of(settings, level)
        if not seeds:
            return list(settings)
        table = self.table(settings, level, seeds)
        rank, score = fronts(table.mean(1)), self.score(table).mean(1)
        if len(settings) > SMOOTH_ABOVE:
            near = np.array([[self.nearness(one, other) for other in settings] for one in settings])
            score = near @ score / near.sum(1)
        return [settings[place] for place in sorted(range(len(settings)), key=lambda place: (rank[place], -score[place], place))]

    def nearness(self, one: int, other: int) -> float:
        """How much the mean of a setting says of another: 1 of itself, NEIGHBOUR where one field differs by one value, otherwise 0."""
        here, there = self.settings[one], self.settings[other]
        apart = [field for field in here if here[field] != there.get(field)]
        if here.keys() != there.keys() or len(apart) > 1:
            return 0.0
        if not apart:
            return 1.0
        ends = here[apart[0]], there[apart[0]]
        if not all(isinstance(end, (int, float)) for end in ends):
            return NEIGHBOUR
        values = sorted({setting[apart[0]] for setting in self.settings if apart[0] in setting})
        return NEIGHBOUR if abs(values.index(ends[0]) - values.index(ends[1])) == 1 else 0.0

    def broken(self, settings: Sequence[int], level: int) -> dict[int, str]:
        """The settings that break a limit by what was measured, and why. Costs only grow with fidelity; metrics count at full quality."""
        found = {}
        for setting in settings:
            own = [figures for (number, at, _), figures in self.figures.items() if (number, at) == (setting, level)]
            for limit in self.limits:
                values = [value for one in own if not math.isnan(value := one.get(limit.figure, math.nan))]
                counts = level == self.full or (limit.most and limit.figure in ("seconds_total", "peak_vram_gib", "peak_ram_gib"))
                if values and counts and limit.broken_by(float(np.mean(values))):
                    found[setting] = f"{limit}: {np.mean(values):.3g}"
        return found

    def worse(self, settings: Sequence[int], level: int) -> dict[int, str]:
        """The settings that another one beats for sure, by what, over the seeds that all have; with fewer than two seeds none."""
        seeds = self.seeds_of(settings, level)
        if len(seeds) < 2 or len(settings) < 2:
            return {}
        table = self.table(settings, level, seeds)
        means, widths = table.mean(1), half_width(table, 1 - ALPHA)
        ahead = means[:, None] - means[None]  # of the row over the column
        beats = (ahead > np.maximum(widths, 1e-12)).any(-1) & (ahead >= 0).all(-1)
        lead = 1 + means[:, 0] - means[:, 0].min()
        by = {int(column): int(np.argmax(beats[:, column] * lead)) for column in np.flatnonzero(beats.any(0))}
        return {settings[column]: f"worse than {settings[row] + 1}" for column, row in by.items()}

    def leave(self, settings: Sequence[int], level: int, most: int) -> list[int]:
        """Who goes on, the best first: not who breaks a limit or is worse, and at most so many. Notes it with the last round."""
        told = self.told[-1]
        told.worse = self.broken(settings, level)
        told.worse |= {
            setting: "not made" for setting in settings if not self.seeds_of([setting], level)
        }  # the planner knew a limit
        left = [setting for setting in settings if setting not in told.worse]
        told.worse |= self.worse(left, level)
        ranked = self.order([setting for setting in left if setting not in told.worse], level)
        told.dropped = tuple(ranked[most:])
        return ranked[:most]

    def nothing_differs(self, *, last: bool = True) -> bool:
        """Whether all rounds together, of which each had fresh seeds, could well be chance (Fisher's method).

        Only where the first round, which had all settings, had several seeds and showed nothing: those that are left later may be alike.

        Args:
            last: whether no round but the final is left.
        """
        ps = [told.p for told in self.told if not math.isnan(told.p)]
        first = self.told[0].p
        likely = LIKELY_BEFORE if not last else LIKELY if len(ps) > 1 else LIKELY_ALONE
        return not math.isnan(first) and first > ALPHA and fisher(ps) > likely


def fronts(means: Numbers) -> list[int]:
    """For each of (settings, goals) the number of the front it is on: 0 for those that none beats; of one goal all are 0."""
    rank = [0] * len(means)
    if means.shape[1] == 1:
        return rank
    left = list(range(len(means)))
    for number in range(len(means)):
        own = means[left]
        there = [not any((other >= one).all() and (other > one).any() for other in own) for one in own]
        for place, best in zip(list(left), there, strict=True):
            if best:
                rank[place] = number
                left.remove(place)
        if not left:
            break
    return rank


def differ(score: Numbers) -> float:
    """The chance that equal settings would be as unequal as these (settings, seeds): values are shuffled within seeds; never 0."""
    rest = score - score.mean(0)
    luck = np.random.default_rng(0)
    orders = luck.random((DRAWS, rest.shape[1], rest.shape[0])).argsort(-1)
    means = np.mean([rest[orders[:, seed], seed] for seed in range(rest.shape[1])], axis=0)  # (draws, settings)
    own = float((rest.mean(1) ** 2).sum())
    if own <= 1e-18:
        return 1.0
    return float((1 + ((means**2).sum(1) >= own * (1 - 1e-9)).sum()) / (DRAWS + 1))


def fisher(ps: Sequence[float]) -> float:
    """One chance from several independent ones."""
    from scipy import stats

    return float(stats.chi2.sf(-2 * sum(map(math.log, ps)), 2 * len(ps)))
