"""People's votes between two clips, made into a ranking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from i2v_lab.statistics.columns import Numbers

if TYPE_CHECKING:
    import pandas as pd


def ranking(votes: pd.DataFrame, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A ranking by Bradley and Terry (1952): P(i is judged better than j) = 1 / (1 + exp(s_j - s_i)).

    A vote for "equal" counts as half a win for each. Each clip has one more "equal" against an imaginary clip of strength 0,
    so that a clip that always won or lost still has a finite strength; with few votes this draws strengths towards 0. Intervals
    are percentiles of 1,000 bootstraps over the votes, 95 %.

    Args:
        votes: left, right (ids), better (left, right, equal); see `Opinions.votes`.
        groups: the setting (such as guidance 9) of each run's id: then settings are ranked, and votes within one setting, or
            on a run without one, are left out.

    Returns:
        The strongest first. Index: id or setting; columns: strength (natural logarithm, 0 is average), low, high, votes,
        won (share, 0 to 1; "equal" is half).
    """
    import pandas as pd

    columns = ["strength", "low", "high", "votes", "won"]
    named = [
        (left, right, better) if groups is None else (groups.get(left), groups.get(right), better)
        for left, right, better in zip(votes["left"], votes["right"], votes["better"], strict=True)
    ]
    kept = [(left, right, better) for left, right, better in named if left is not None and right is not None and left != right]
    names = list(dict.fromkeys(name for left, right, _ in kept for name in (left, right)))
    if not kept:
        return pd.DataFrame(columns=columns, dtype="float64")
    at = {name: number for number, name in enumerate(names)}
    score = {"left": 1.0, "right": 0.0, "equal": 0.5}
    pairs = np.array([(at[left], at[right]) for left, right, _ in kept])
    won = np.array([score[better] for _, _, better in kept])
    rng, many = np.random.default_rng(0), len(kept)
    times = np.vstack([np.ones(many), rng.multinomial(many, np.full(many, 1 / many), size=1000)])  # (1 + 1000, votes)
    strengths = _bradley_terry(pairs, won, times, len(names))
    low, high = np.percentile(strengths[1:], (2.5, 97.5), axis=0)
    count = np.bincount(pairs.ravel(), minlength=len(names))
    wins = np.bincount(pairs[:, 0], won, len(names)) + np.bincount(pairs[:, 1], 1 - won, len(names))
    found = pd.DataFrame(dict(zip(columns, (strengths[0], low, high, count, wins / count), strict=True)), index=names)
    return found.sort_values("strength", ascending=False, kind="stable")


def _bradley_terry(pairs: npt.NDArray[np.int64], won: Numbers, times: Numbers, many: int) -> Numbers:
    """Strengths (B, many) for B weightings (B, votes) of the votes, by Hunter's (2004) MM iteration, all at once."""
    left, right = pairs.T
    at_left, at_right = (np.eye(many)[side] for side in (left, right))  # (votes, many)
    wins = times @ (won[:, None] * at_left + (1 - won)[:, None] * at_right)
    # Only pairs that were compared: most clips never meet most others.
    couples, which = np.unique(np.sort(pairs, axis=1), axis=0, return_inverse=True)
    one, other = couples.T
    met = times @ np.eye(len(couples))[which.ravel()]  # (B, couples)
    members = np.eye(many)[one] + np.eye(many)[other]  # (couples, many)
    power = np.ones((len(times), many))
    for _ in range(10_000):
        share = met / (power[:, one] + power[:, other])  # (B, couples)
        after = (wins + 0.5) / (share @ members + 1 / (power + 1))
        change = float(np.abs(np.log(after / power)).max())
        power = after
        if change < 1e-7:
            break
    return np.log(power)
