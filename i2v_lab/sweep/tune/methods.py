"""How a space is searched: generators that yield rounds and read the race. They end with the settings that go into the final."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from i2v_lab.sweep.tune.race import Race, Round

if TYPE_CHECKING:
    from i2v_lab.sweep.tune.space import Setting

Search = Generator[Round, None, list[int]]
SHRINK = 4.0  # a round leaves about this part of the settings
FIRST_SHARE = 0.55  # of the search, at most, for a second seed in the first round
FINAL_SHARE = 0.2  # of the budget, for the final
FINAL_SEEDS = (3, 20)  # of each finalist
ROUND_SEEDS = 20  # at most, of a round


def reserve(race: Race, settings: Sequence[int]) -> float:
    """The share of the budget that is kept for the final: fresh seeds at full quality for the finalists."""
    finalists = min(race.finalists, len(settings))
    one = race.cost(settings, race.full) / len(settings) * finalists
    seeds = min(max(math.floor(FINAL_SHARE / one + 1e-9), FINAL_SEEDS[0]), FINAL_SEEDS[1])
    return min(seeds * one, 0.5)


def begin(race: Race, share: float, level: int = 0, seeds: int = 1) -> list[int]:
    """The settings of the first round: all; or as many, drawn, as a share of the budget pays for."""
    every = list(range(len(race.settings)))
    room = share / max(race.cost(every, level) * seeds / len(every), 1e-12)
    if room >= len(every) * (1 - 1e-9):
        return every
    return sorted(random.Random(race.seed).sample(every, max(math.floor(room + 1e-9), 1)))  # noqa: S311  no secret


def halving(race: Race) -> Search:
    """All settings with few seeds at a cheap fidelity, then fewer and fewer with more seeds, the last ones at full quality."""
    left_over = 1 - reserve(race, range(len(race.settings)))
    alive = begin(race, left_over * FIRST_SHARE)
    keep = min(race.finalists, len(alive))
    first = len(alive)
    turns = max(race.levels, math.ceil(math.log(max(first / keep, 1)) / math.log(SHRINK)))
    for turn in range(turns if first > keep else 0):
        level = turn * race.levels // turns
        share = (left_over - race.spent) / (turns - turn)
        seeds = race.affords(alive, level, share)
        if seeds < 1:  # as many of the best as there is room for
            alive = alive[: max(keep, math.floor(len(alive) * share / race.cost(alive, level)))]
            seeds = 1 if race.affords(alive, level, left_over - race.spent) else 0
        if not seeds:
            break
        if turn == 0 and seeds == 1 and race.affords(alive, level, left_over * FIRST_SHARE) > 1:
            seeds = 2  # with one nothing can be tested
        yield Round(tuple(alive), race.fresh(min(seeds, ROUND_SEEDS)), level)
        alive = race.leave(alive, level, max(keep, math.ceil(first * (keep / first) ** ((turn + 1) / turns))))
        if race.nothing_differs(last=turn == turns - 1):
            race.noise = True
            return []
        if len(alive) <= 1:
            break
    return alive


def grid(race: Race) -> Search:
    """Every setting, or as many as the budget pays for, at full quality."""
    left_over = 1 - reserve(race, range(len(race.settings)))
    return (yield from _tried(race, begin(race, left_over, race.full, race.seeds)))


def drawn(race: Race, draw: Callable[[random.Random], Setting]) -> Search:
    """Random settings at full quality, until the budget is spent but for the final."""
    luck = random.Random(race.seed)  # noqa: S311  no secret
    known: list[Setting] = []
    for _ in range(10_000):
        setting = draw(luck)
        if setting not in known:
            known.append(setting)
            race.settings.append(setting)
            numbers = list(range(len(known)))
            if race.cost(numbers, race.full) * race.seeds > 1 - reserve(race, numbers):
                race.settings.pop()
                break
    return (yield from _tried(race, list(range(len(race.settings)))))


def _tried(race: Race, settings: list[int]) -> Search:
    yield Round(tuple(settings), race.fresh(race.seeds), race.full)
    alive = race.leave(settings, race.full, len(settings))
    if race.nothing_differs():
        race.noise = True
        return []
    return alive


def final(race: Race, alive: Sequence[int]) -> Generator[Round, None, list[int]]:
    """The comparison of the finalists, with seeds that are fresh. Returns the finalists; the race's last round is theirs."""
    finalists = list(alive[: race.finalists])
    while len(finalists) > 2 and race.affords(finalists, race.full, 1 - race.spent) < FINAL_SEEDS[0]:
        finalists.pop()
    seeds = min(race.affords(finalists, race.full, 1 - race.spent), FINAL_SEEDS[1]) if finalists else 0
    if seeds:
        yield Round(tuple(finalists), race.fresh(seeds), race.full, final=True)
        race.told[-1].worse = race.broken(finalists, race.full)
    return finalists
