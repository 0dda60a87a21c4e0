"""What a tune came to: the winner, how sure that is, what it cost, and whether the cheap fidelity ranked like the dear one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from i2v_lab.statistics.columns import Numbers
from i2v_lab.statistics.intervals import interval, pooled
from i2v_lab.statistics.shuffles import half_width
from i2v_lab.sweep.tune.race import Race, Told, fronts
from i2v_lab.sweep.tune.space import Setting

RANKED_FROM = 4  # settings: with fewer a rank correlation says nothing
LIKE = 0.5  # a rank correlation below this is a warning


@dataclass(frozen=True)
class Ranking:
    """How a cheap fidelity ranked the settings that were made at full quality too: Spearman's correlation, 95 % interval by Fisher's z."""

    level: int
    settings: int
    correlation: float
    low: float
    high: float

    @property
    def unlike(self) -> bool:
        """Whether it did not rank alike, or that was not shown."""
        return self.correlation < LIKE or self.low <= 0


@dataclass(frozen=True)
class Finalist:
    """A setting of the final, by its fresh seeds.

    Attributes:
        number: of the setting, from 0. mean, low, high: of the first goal, with the 95 % interval; NaN with fewer than three seeds.
        behind: how far it is behind the winner, with the interval behind_low to behind_high, that holds for all pairs of finalists together.
        told: whether it is worse than the winner for sure. broken: a limit that it breaks; "" for none.
    """

    number: int
    setting: Setting
    mean: float
    low: float = math.nan
    high: float = math.nan
    behind: float = 0.0
    behind_low: float = math.nan
    behind_high: float = math.nan
    told: bool = False
    broken: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a tune came to.

    Attributes:
        finalists: the best first; the first one is the winner, where there is one.
        seeds: the fresh seeds of the final; none where the budget did not pay for it.
        noise: nothing can be told apart: there is no winner.
        complete: whether the search came to its end.
        clips, seconds: what was spent. grid_clips, grid_seconds: what all settings at full quality with the seeds of the final would have cost;
            NaN for a space that is no list.
        rankings: of each cheap fidelity.
        rounds: in order. left_out: settings that the planner knew to break a limit, {setting in words: why}.
        settings: all that were taken up.
        votes: that were counted.
    """

    finalists: tuple[Finalist, ...] = ()
    seeds: tuple[int, ...] = ()
    noise: bool = False
    complete: bool = False
    clips: int = 0
    seconds: float = 0.0
    grid_clips: float = math.nan
    grid_seconds: float = math.nan
    rankings: tuple[Ranking, ...] = ()
    rounds: tuple[Told, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    votes: int = 0

    @property
    def winner(self) -> Finalist | None:
        """The best of the finalists; None where nothing can be told apart, or none meets the limits."""
        best = next(iter(self.finalists), None)
        return None if self.noise or best is None or best.broken else best

    @property
    def alike(self) -> tuple[Finalist, ...]:
        """The winner, and those that cannot be told from it with the seeds that were made."""
        return tuple(one for one in self.finalists if not one.told and not one.broken)


def finalists(race: Race, chosen: Sequence[int]) -> tuple[tuple[Finalist, ...], tuple[int, ...]]:
    """(the finalists, the best first; the fresh seeds that they are judged by)."""
    last = race.told[-1] if race.told and race.told[-1].round.final else None
    seeds = last.round.seeds if last else ()
    broken = race.broken(chosen, race.full)
    level = race.full if last or race.seeds_of(chosen, race.full) else max((told.round.level for told in race.told), default=0)
    own = seeds or race.seeds_of(chosen, level)
    if not chosen or not own:
        return tuple(Finalist(number, race.settings[number], math.nan) for number in chosen), ()
    table = race.table(chosen, level, own)
    score, rank = race.score(table), fronts(table.mean(1))
    places = sorted(range(len(chosen)), key=lambda place: (chosen[place] in broken, rank[place], -score[place].mean(), place))
    sign = 1 if race.goals[0].up else -1
    spread = pooled(list(table[..., 0]))
    widths = _widths(table) if seeds else math.nan
    best, found = table[places[0], :, 0], []
    for place in places:
        values = table[place, :, 0]
        low, high = interval(values, spread) if seeds else (math.nan, math.nan)
        low, high = (low, high) if sign > 0 else (-high, -low)
        behind = float((best - values).mean())
        found.append(Finalist(
            chosen[place], race.settings[chosen[place]], sign * float(values.mean()), low, high, behind, behind - widths, behind + widths,
            told=place != places[0] and behind > widths, broken=broken.get(chosen[place], ""),
        ))  # fmt: skip
    return tuple(found), seeds


def _widths(table: Numbers) -> float:
    """How far two finalists must be apart in the first goal; NaN with fewer than two seeds."""
    return float(half_width(table[..., 0])[0]) if table.shape[0] > 1 and table.shape[1] > 1 else math.nan


def rankings(race: Race) -> tuple[Ranking, ...]:
    """How each cheap fidelity ranked the settings that were made at full quality as well."""
    found = []
    for level in range(race.full):
        settings = [
            number for number in range(len(race.settings)) if race.seeds_of([number], level) and race.seeds_of([number], race.full)
        ]
        if len(settings) < RANKED_FROM:
            continue
        means = [
            [float(race.table([number], at, race.seeds_of([number], at))[..., 0].mean()) for number in settings]
            for at in (level, race.full)
        ]
        if len(set(means[0])) > 1 and len(set(means[1])) > 1:
            found.append(Ranking(level, len(settings), *spearman(*means)))
    return tuple(found)


def spearman(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """(rank correlation, and its 95 % interval by Fisher's z with the error of Bonett and Wright 2000)."""
    from scipy import stats

    rho = float(stats.spearmanr(one, other).statistic)
    if len(one) < RANKED_FROM:
        return rho, -1.0, 1.0
    z, error = math.atanh(min(max(rho, -0.9999), 0.9999)), math.sqrt((1 + rho**2 / 2) / (len(one) - 3))
    return rho, float(np.tanh(z - 1.96 * error)), float(np.tanh(z + 1.96 * error))
