"""People's votes between two clips, made into a ranking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from i2v_lab.errors import InputError
from i2v_lab.statistics.columns import Numbers

if TYPE_CHECKING:
    import pandas as pd

SIDES = ("left", "right", "equal")
PRIOR_SD = 2.0  # of a strength: 95 % of strengths within 4 of the average, odds of 55 to 1
TIES_SD = 2.0  # of the logarithm of the tie parameter
_NORMAL = 1.959963984540054  # 95 %


def ranking(votes: pd.DataFrame, groups: Mapping[str, str] | None = None) -> pd.DataFrame:
    """A ranking by Davidson's (1970) model of paired comparisons with ties.

    P(left) : P(right) : P(equal) = exp(s_l) : exp(s_r) : v exp((s_l + s_r) / 2). Strengths have a weak normal prior (mean 0, standard
    deviation 2), so that one vote or an unanimous winner has a finite strength and a wide interval: 95 %, by profile likelihood
    with that prior. Clips that no chain of votes connects are ranked apart: their strengths cannot be compared.

    Args:
        votes: left, right (ids), better (left, right, equal); see `Opinions.votes`.
        groups: the setting (such as guidance 9) of each run's id: then settings are ranked, and votes within one setting, or
            on a run without one, are left out.

    Returns:
        The strongest first, group by group. Index: id or setting; columns: strength (natural logarithm, 0 is the average of its
        group), low, high, votes, won (share, 0 to 1; "equal" is half), group (from 1, the largest first).

    Raises:
        InputError: a vote is another word.
    """
    import pandas as pd

    columns = ["strength", "low", "high", "votes", "won", "group"]
    if unknown := sorted(set(map(str, votes["better"])) - set(SIDES)):
        raise InputError(f"better: expected {', '.join(SIDES)}, got {', '.join(map(repr, unknown))}")
    named = [
        (left, right, better) if groups is None else (groups.get(left), groups.get(right), better)
        for left, right, better in zip(votes["left"], votes["right"], votes["better"], strict=True)
    ]
    kept = [(left, right, better) for left, right, better in named if left is not None and right is not None and left != right]
    if not kept:
        return pd.DataFrame(columns=columns, dtype="float64")
    names = list(dict.fromkeys(name for left, right, _ in kept for name in (left, right)))
    at = {name: number for number, name in enumerate(names)}
    counts: Numbers = np.zeros((len(names), len(names), 2))  # wins of the row over the column; ties
    for left, right, better in kept:
        one, other = (at[right], at[left]) if better == "right" else (at[left], at[right])
        counts[one, other, int(better == "equal")] += 1
    part = _connected((counts.sum(-1) + counts.sum(-1).T) > 0)
    strengths, low, high = (np.zeros(len(names)) for _ in range(3))
    for number in range(part.max() + 1):
        mine = np.flatnonzero(part == number)
        strengths[mine], low[mine], high[mine] = _davidson(counts[np.ix_(mine, mine)])
    met = counts.sum((1, 2)) + counts.sum((0, 2))
    won = (counts[..., 0].sum(1) + counts[..., 1].sum(1) / 2 + counts[..., 1].sum(0) / 2) / met
    found = pd.DataFrame(dict(zip(columns, (strengths, low, high, met.astype(int), won, part + 1), strict=True)), index=names)
    return found.sort_values(["group", "strength"], ascending=[True, False], kind="stable")


def _connected(met: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The number of each clip's group, that of the most clips first: clips that a chain of votes connects."""
    part = np.arange(len(met))
    for one, other in np.argwhere(met):
        part[part == part[other]] = part[one]
    names, sizes = np.unique(part, return_counts=True)
    order = names[np.argsort(-sizes, kind="stable")].tolist()
    return np.array([order.index(name) for name in part])


def _davidson(counts: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """(strengths, low, high) of clips that are connected.

    The posterior's maximum by Newton's method; an interval ends where the profile of the posterior falls by 1.96² / 2. The profile
    is taken in the direction of a strength against the mean of all, since that is what is shown.
    """
    many = len(counts)
    one, other = np.nonzero(np.triu(counts.sum(-1) + counts.sum(-1).T > 0, 1))
    wins, losses = counts[one, other, 0], counts[other, one, 0]
    ties = counts[one, other, 1] + counts[other, one, 1]
    data = (one, other, wins, losses, ties)
    start = np.zeros(many + 1)  # strengths, and the logarithm of v
    free = np.zeros(many + 1)
    best, top, hessian = _climb(start, data, free)
    shown = best[:-1] - best[:-1].mean()
    covariance = np.linalg.inv(hessian)
    low, high = np.zeros(many), np.zeros(many)
    for clip in range(many):
        direction = np.r_[np.full(many, -1 / many), 0.0]
        direction[clip] += 1
        deviation = float(np.sqrt(direction @ covariance @ direction))
        for ends, side in ((low, -1.0), (high, 1.0)):
            ends[clip] = _profile_end(best, data, direction, float(shown[clip]), side * deviation, top)
    return shown, low, high


_Data = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Numbers, Numbers, Numbers]


def _profile_end(best: Numbers, data: _Data, direction: Numbers, middle: float, deviation: float, top: float) -> float:
    """Where the profile of `direction @ strengths` falls by 1.96² / 2; by secant steps, since it is nearly a parabola."""
    start, reach = best, _NORMAL
    for _ in range(8):
        value = middle + reach * deviation
        start, height, _ = _climb(start + direction * (value - direction @ start) / (direction @ direction), data, direction)
        fallen = np.sqrt(max(2 * (top - height), 1e-12))
        if abs(fallen - _NORMAL) < 0.01:
            break
        reach *= min(max(_NORMAL / fallen, 0.5), 2.0)
    return middle + reach * deviation


# The utility of each answer (left, right, equal) from the strengths of both clips and the logarithm of v.
_ANSWERS = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 1.0]])


def _climb(x: Numbers, data: _Data, fixed: Numbers) -> tuple[Numbers, float, Numbers]:
    """(where the posterior is highest, its logarithm, minus its second derivatives), with `fixed @ x` held where it is not all 0."""
    one, other, *seen = data
    many = len(x)
    at = np.stack([one, other, np.full(len(one), many - 1)])  # (3, pairs): the places in x that a pair depends on
    block = (at[:, None] * many + at[None]).ravel()
    answers = np.stack(seen)
    total = answers.sum(0)
    precision = np.r_[np.full(many - 1, PRIOR_SD**-2), TIES_SD**-2]
    held = bool(fixed.any())

    def chances(x: Numbers) -> tuple[Numbers, float]:
        use = _ANSWERS @ x[at]
        use = use - use.max(0)
        log = use - np.log(np.exp(use).sum(0))
        return np.exp(log), float((answers * log).sum() - (precision * x**2).sum() / 2)

    for _ in range(30):
        p = chances(x)[0]
        slope = np.bincount(at.ravel(), (_ANSWERS.T @ (answers - total * p)).ravel(), many) - precision * x
        mean = _ANSWERS.T @ p
        second = np.einsum("ka,kb,kp->abp", _ANSWERS, _ANSWERS, p) - mean[:, None] * mean[None]
        hessian = np.bincount(block, (total * second).ravel(), many * many).reshape(many, many) + np.diag(precision)
        if held:  # a step that leaves fixed @ x as it is
            system = np.block([[hessian, fixed[:, None]], [fixed[None], np.zeros((1, 1))]])
            step = np.linalg.solve(system, np.r_[slope, 0.0])[:-1]
        else:
            step = np.linalg.solve(hessian, slope)
        x = x + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-5:
            break
    return x, chances(x)[1], hessian
