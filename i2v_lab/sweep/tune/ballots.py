"""People as the goal: blind pairs, votes, and who is promoted by them. Votes are those of the store on clips of this tune."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from i2v_lab.statistics import ranking
from i2v_lab.store.opinions import Opinions
from i2v_lab.sweep.tune.outcome import Finalist
from i2v_lab.sweep.tune.race import Race, Round

if TYPE_CHECKING:
    from i2v_lab.store import Store

TURNS = ((0.5, 0.5), (0.75, 0.25), (1.0, 0.0))
"""(share of the votes until a turn ends, part of the settings that gets clips with another seed then)."""


class Ballot(NamedTuple):
    """A vote between two settings, by their numbers; better: left, right or equal."""

    left: int
    right: int
    better: str


def counted(race: Race, store: Store) -> list[Ballot]:
    """The votes on clips of this tune, in the order they were given; votes between two clips of one setting are none."""
    owner = {run: setting for (setting, _, _), run in race.runs.items() if run}
    votes = Opinions(store).votes()
    named = zip(votes["left"], votes["right"], votes["better"], strict=True)
    pairs = [Ballot(owner[left], owner[right], better) for left, right, better in named if left in owner and right in owner]
    return [vote for vote in pairs if vote.left != vote.right]


def search(race: Race, most: int, votes: Callable[[], list[Ballot]]) -> Generator[Round, None, list[int]]:
    """One seed of each setting; after half of the votes another seed of the better half, and so on. Ends early where one is best for sure.

    Args:
        most: votes in all.

    Returns:
        The settings, the best first. Where votes are missing, `race.pair` has the two settings to ask about next.
    """
    alive = list(range(len(race.settings)))
    for share, part in TURNS:
        yield Round(tuple(alive), race.fresh(1), race.full)
        race.told[-1].p = math.nan
        upto, cast = round(most * share), votes()
        ranks = ranked(cast[:upto])
        if is_settled(ranks, alive):
            return ordered(ranks, alive)
        if len(cast) < upto:
            race.pair = next_pair(cast, alive, race.seed)
            return ordered(ranks, alive)
        best = ordered(ranks, alive)
        lost = {
            setting for setting in best[1:] if setting in ranks and best[0] in ranks and ranks[setting].high < ranks[best[0]].low
        }
        kept = (
            [setting for setting in best if setting not in lost][: max(2, math.ceil(len(race.settings) * part))] if part else best
        )
        race.told[-1].worse = dict.fromkeys(lost, "lost the votes")
        race.told[-1].dropped = tuple(setting for setting in best if setting not in lost and setting not in kept)
        alive = kept
    return alive


class Strength(NamedTuple):
    """Of a setting, in the ranking by all votes; see `statistics.ranking`."""

    strength: float
    low: float
    high: float
    group: int


def ranked(votes: Sequence[Ballot]) -> dict[int, Strength]:
    """The ranking by these votes, the strongest first: {number of a setting: its strength}."""
    import pandas as pd

    table = pd.DataFrame([(str(vote.left), str(vote.right), vote.better) for vote in votes], columns=["left", "right", "better"])
    found = ranking(table)
    rows = zip(found.index, *(found[name].astype(float).tolist() for name in Strength._fields), strict=True)
    return {int(name): Strength(strength, low, high, int(group)) for name, strength, low, high, group in rows}


def ordered(ranks: Mapping[int, Strength], alive: Sequence[int]) -> list[int]:
    """The best first; those without a vote come last."""
    return sorted(alive, key=lambda setting: (-ranks[setting].strength if setting in ranks else math.inf, setting))


def is_settled(ranks: Mapping[int, Strength], alive: Sequence[int]) -> bool:
    """Whether one setting is better than all others for sure, in one connected ranking."""
    known = [own for setting, own in ranks.items() if own.group == 1 and setting in alive]
    return len(known) == len(alive) > 1 and known[0].low > max(own.high for own in known[1:])


def next_pair(votes: Sequence[Ballot], alive: Sequence[int], seed: int) -> tuple[int, int] | None:
    """The two settings to ask about next: the one that won most more often than it lost, and of those next to it the one it met least.

    A setting that loses falls back at once, so each is asked about until it has lost, and the best ones most. A function of the votes so far;
    the sides are drawn.
    """
    if len(alive) < 2:
        return None
    luck = random.Random(f"{seed} {len(votes)}")  # noqa: S311  an order, no secret
    won = dict.fromkeys(alive, 0)
    for left, right, better in votes:
        for setting, side in ((left, "left"), (right, "right")):
            if setting in won and better != "equal":
                won[setting] += 1 if better == side else -1
    best = min(alive, key=lambda setting: (-won[setting], luck.random()))
    others = [setting for setting in alive if setting != best]
    near = [setting for setting in others if won[setting] == max(won[one] for one in others)]
    other = min(near, key=lambda setting: (sum({best, setting} == {vote.left, vote.right} for vote in votes), luck.random()))
    return (best, other) if luck.random() < 0.5 else (other, best)


def finalists(race: Race, chosen: Sequence[int], votes: Sequence[Ballot]) -> tuple[Finalist, ...]:
    """The settings, the best first, by their strengths in the ranking (natural logarithm of odds) with their intervals."""
    ranks = ranked(votes)
    found: list[Finalist] = []
    for number in chosen:
        own = ranks.get(number, Strength(math.nan, math.nan, math.nan, 0))
        best = found[0] if found else None
        behind = best.mean - own.strength if best else 0.0
        told = best is not None and own.high < best.low
        found.append(Finalist(number, race.settings[number], own.strength, own.low, own.high, behind, told=told))
    return tuple(found)
