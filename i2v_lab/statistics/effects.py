"""Which effects of a sweep are real: one family-wise answer over axes, interactions and metrics.

The question is whether a metric changes along an axis. If an axis does nothing, its levels may be exchanged within a block (a
seed; the seed's own deviation stays with it): whole axes are shuffled within blocks, the same way for all metrics and all other
axes, and the largest statistic of all metrics and effects is compared (Westfall and Young 1993). So the chance that a report
says anything wrong is at most 5 %, whatever the distribution of a metric and however the metrics go together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from i2v_lab.statistics.columns import Numbers
from i2v_lab.statistics.design import Design
from i2v_lab.statistics.shuffles import (
    DRAWS,
    LEVEL,
    ROUNDING,
    Orders,
    half_width,
    is_smooth,
    labelled,
    main_table,
    shuffles,
    span,
    statistic_of,
    unevenness,
    usable,
)

MOST_CROSSED = 200  # combinations of two axes: with more they are not tested for crossing
MOST_NUMBERS = 4_000_000  # held for the shuffles of one effect: long axes get fewer shuffles
FEWEST_DRAWS = 200
MOST_PAIRS = 15  # levels whose pairs are compared
OTHERS = 0.25  # the weight of a metric that was not asked about, where one was


@dataclass(frozen=True)
class Pair:
    """Two levels: means differ by `change`, between low and high; intervals of all pairs of a report hold together."""

    before: int
    after: int
    change: float
    low: float
    high: float


@dataclass(frozen=True)
class Effect:
    """What one metric does along one axis, or along two that cross.

    Attributes:
        axes: their names. metric: the column. values: the levels of each axis that were compared: those with clips of at least
            half the blocks.
        p: family-wise over everything that was tested; never 0.
        shape: trend (a straight line through the ordered levels), bend (a parabola), or differ (categories).
        means: of the levels; of two axes a table (levels, levels), rows and columns taken off.
        change, low, high: of the trend, the line's end less its beginning; of the bend, the middle less the ends; of two axes
            with order, how much the change along the first axis grows along the second. NaN for categories.
        spread: the standard deviation of a paired difference of two levels.
        pairs: of levels; only where the effect is claimed.
        uneven: the largest standard deviation of a level over the smallest; 1 where chance explains it.
        smooth: whether a block's deviations are alike at neighbouring levels. Both make the 5 % less sure,
            unless it is firm: the blocks' own changes, by t-tests corrected for all that is tested (Bonferroni), say the same.
    """

    axes: tuple[str, ...]
    metric: str
    values: tuple[tuple[Any, ...], ...]
    p: float
    shape: Literal["trend", "bend", "differ"]
    means: Numbers
    change: float
    low: float
    high: float
    spread: float
    uneven: float
    smooth: bool
    firm: bool
    pairs: tuple[Pair, ...] = ()

    @property
    def claimed(self) -> bool:
        """Whether the report says that it is real."""
        return self.p <= 1 - LEVEL + ROUNDING


@dataclass
class _Test:
    """One effect for some metrics, with its shuffles."""

    axes: tuple[int, ...]
    metrics: list[int]
    table: Numbers  # (cells, blocks, metrics), complete blocks first; NaN where absent
    orders: Orders
    values: tuple[tuple[Any, ...], ...]
    ordered: tuple[bool, ...]
    statistic: Numbers  # (draws, metrics)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(map(len, self.values))


def effects(
    found: Design, named: Collection[str] = (), skip: Mapping[str, Collection[str]] | None = None, draws: int = DRAWS
) -> list[Effect]:
    """Each metric along each axis, and along each two axes, the surest first.

    Args:
        named: the metrics (columns) that were asked about: they have the weight 1, the others OTHERS.
        skip: {metric: the axes over which it must not be compared}.
    """
    tests = tested(found, named, skip, draws)
    many = 2 * sum(len(p) for _, p in tests)  # a straight line and a bend each
    answer = [effect for test, p in tests for effect in _described(found, test, p, many)]
    return sorted(answer, key=lambda effect: effect.p)


def tested(
    found: Design, named: Collection[str] = (), skip: Mapping[str, Collection[str]] | None = None, draws: int = DRAWS
) -> list[tuple[_Test, dict[int, float]]]:
    """Each effect with {number of a metric: its family-wise p}; arguments as for `effects`."""
    weights = {at: 1.0 if not named or metric in named else OTHERS for at, metric in enumerate(found.metrics)}
    families = [list(_tests(found, metrics, skip or {}, draws)) for metrics in _families(found)]
    whole = sum({at: weights[at] for tests in families for test in tests for at in test.metrics}.values())
    answer = []
    for tests in filter(None, families):
        share = sum({at: weights[at] for test in tests for at in test.metrics}.values()) / whole
        for test, p in zip(tests, _family_wise(tests, weights), strict=True):
            # Metrics with gaps of their own are shuffled apart: the families share the 5 % out.
            answer.append((test, {metric: min(1.0, own / share) for metric, own in p.items()}))
    return answer


def _family_wise(tests: Sequence[_Test], weights: Mapping[int, float]) -> list[dict[int, float]]:
    """{metric: p} of each test: the share of shuffles in which any test of any metric is as extreme, for its weight."""
    least, observed = np.ones(len(tests[0].statistic)), []
    for test in tests:
        found: dict[int, float] = {}
        for weight in {weights[metric] for metric in test.metrics}:
            places = [place for place, metric in enumerate(test.metrics) if weights[metric] == weight]
            top = test.statistic[:, places].max(1)
            ranked = np.sort(top)

            def rank(amounts: Numbers, ranked: Numbers = ranked, weight: float = weight) -> Numbers:
                return (len(ranked) - np.searchsorted(ranked, amounts * (1 - ROUNDING))) / len(ranked) / weight

            least = np.minimum(least, rank(top))
            found |= {test.metrics[place]: float(rank(test.statistic[:1, place])[0]) for place in places}
        observed.append(found)
    return [{metric: float((least <= u * (1 + ROUNDING)).mean()) for metric, u in found.items()} for found in observed]


def _families(found: Design) -> list[list[int]]:
    """The metrics that are missing for the same clips."""
    groups: dict[bytes, list[int]] = {}
    for metric in range(len(found.metrics)):
        there = np.isfinite(found.y[..., metric])
        if there.any():
            groups.setdefault(there.tobytes(), []).append(metric)
    return list(groups.values())


def _tests(found: Design, metrics: list[int], skip: Mapping[str, Collection[str]], draws: int) -> Iterator[_Test]:
    y, kept = usable(found.y[..., metrics])
    if not y.size:
        return
    rng = np.random.default_rng(0)
    sizes = y.shape[: len(found.axes)]
    crossed = [pair for pair in combinations([axis for axis, size in enumerate(sizes) if size > 1], 2)
               if sizes[pair[0]] * sizes[pair[1]] <= MOST_CROSSED]  # fmt: skip
    cells = max([*sizes, *(sizes[one] * sizes[other] for one, other in crossed)])
    draws = min(draws, max(FEWEST_DRAWS, MOST_NUMBERS // (cells * len(metrics))))
    tables = [main_table(y, axis) for axis in range(len(found.axes))]
    orders = shuffles(tables, draws, rng)

    def compared(axes: tuple[int, ...]) -> list[int]:
        names = {name for axis in axes for name in (found.axes[axis].name, *found.axes[axis].along)}
        return [at for at, metric in enumerate(metrics) if not names & set(skip.get(found.metrics[metric], ()))]

    def test(axes: tuple[int, ...], table: Numbers, order: Orders) -> Iterator[_Test]:
        own = compared(axes)
        if own and table.shape[1] > 1:
            values = tuple(tuple(found.axes[axis].values[level] for level in kept[axis]) for axis in axes)
            # Two categories that cross another axis are one contrast, like two numbers.
            ordered = tuple(found.axes[axis].ordered or (len(axes) == 2 and y.shape[axis] == 2) for axis in axes)
            table = table[..., own]
            statistic = statistic_of(table, order, [y.shape[axis] for axis in axes], ordered)[0]
            yield _Test(axes, [metrics[at] for at in own], table, order, values, ordered, statistic)

    for axis in range(len(found.axes)):
        if y.shape[axis] > 1:
            use = np.isfinite(tables[axis]).all(-1).sum(0) > 1
            yield from test((axis,), tables[axis][:, use], orders[axis][:, use])
    for one, other in crossed:
        table = y.mean(tuple(axis for axis in range(len(found.axes)) if axis not in (one, other)))
        use = np.isfinite(table).all((0, 1, 3))  # complete blocks only
        if use.any():
            table = table[:, :, use]
            table = table - table.mean(0) - table.mean(1)[:, None] + table.mean((0, 1))
            order = orders[one][:, use, :, None] * table.shape[1] + orders[other][:, use, None, :]
            yield from test((one, other), table.reshape(-1, *table.shape[2:]), order.reshape(*order.shape[:2], -1))


def _described(found: Design, test: _Test, p: Mapping[int, float], many: int) -> Iterator[Effect]:
    """The effects of a test, with sizes; the intervals of those that are claimed hold together. `many`: of all that is tested."""
    from scipy import stats

    sure = [metric for metric in test.metrics if p[metric] <= 1 - LEVEL + ROUNDING]
    _, estimate, groups = statistic_of(test.table, test.orders[:1], test.sizes, test.ordered)
    _, labels = labelled(test.sizes, test.ordered)
    complete = np.isfinite(test.table).all((0, 2))
    rest = test.table[:, complete]
    rest = rest - rest.mean(1, keepdims=True) - rest.mean(0) + rest.mean((0, 1)) if complete.sum() > 1 else rest[:, :0]
    blocks, cells = rest.shape[1], rest.shape[0]
    places = [test.metrics.index(metric) for metric in sure]
    high = 0.0
    if sure and cells == 2:
        high = float(stats.t.ppf(1 - (1 - LEVEL) / 2 / len(sure), test.table.shape[1] - 1))
    elif sure and blocks > 1:
        shuffled = statistic_of(rest[..., places], test.orders[:, complete], test.sizes, test.ordered)[0]
        high = float(np.sqrt(np.quantile(shuffled.max(1), LEVEL)))
    pairs = _pairs(test.table[:, complete][..., places]) if sure and len(test.axes) == 1 else []
    smooth = (
        is_smooth(rest, test.orders[:, complete]) if blocks > 1 and cells > 3 and len(test.axes) == 1 and test.ordered[0] else False
    )
    uneven = unevenness(rest) if len(test.axes) == 1 else np.ones(len(test.metrics))
    for place, metric in enumerate(test.metrics):
        own = rest[..., place]
        errors = np.sqrt((own**2).sum() / max((cells - 1) * (blocks - 1), 1)) if blocks > 1 else np.nan
        group = max(groups, key=lambda one: groups[one][0][0, place])
        # A contrast c of means of the levels, as an amount: times how far the polynomial goes.
        amount = change = low = top = np.nan
        firm = False
        if min(group) >= 0:
            amount = span(test.sizes, group)
            change = float(estimate[labels.index(group), place]) * amount
            half = high * float(np.sqrt(groups[group][1][0, place])) * abs(amount)
            low, top = (change - half, change + half) if metric in sure else (np.nan, np.nan)
            firm = _firm(test.table[:, complete, place], labels.index(group), test.sizes, test.ordered) * many <= 1 - LEVEL
            if metric in sure:  # the test says that it is not 0
                low, top = (max(low, 0.0), top) if change > 0 else (low, min(top, 0.0))
        shape: Any = "differ" if min(group) < 0 else "trend" if sum(group) == 0 else "bend"
        own_table = test.table[:, complete, place] if blocks else test.table[..., place]
        means = _mean_of_known(own_table).reshape(test.sizes)
        own_pairs = pairs[sure.index(metric)] if pairs and metric in sure else ()
        names = tuple(found.axes[axis].name for axis in test.axes)
        spread = float(np.sqrt(2) * errors)
        yield Effect(
            names,
            found.metrics[metric],
            test.values,
            p[metric],
            shape,
            means,
            change,
            low,
            top,
            spread,
            float(uneven[place]),
            smooth,
            firm,
            own_pairs,
        )


def _mean_of_known(table: Numbers) -> Numbers:
    """The mean of each row without its gaps; NaN where it is all gap."""
    count = np.isfinite(table).sum(1)
    return np.asarray(np.where(count > 0, np.nansum(table, 1) / np.maximum(count, 1), np.nan))


def _firm(table: Numbers, contrast: int, sizes: Sequence[int], ordered: Sequence[bool]) -> float:
    """p of a t-test of the blocks' own contrasts; table (cells, blocks). It is right however a block's deviations go together."""
    from scipy import stats

    own = labelled(sizes, ordered)[0][:, contrast] @ table
    if len(own) < 2:
        return 1.0
    error = float(own.std(ddof=1)) / np.sqrt(len(own)) + ROUNDING * float(np.abs(table).max())
    return float(2 * stats.t.sf(abs(own.mean()) / max(error, 1e-300), len(own) - 1))


def _pairs(table: Numbers) -> list[tuple[Pair, ...]]:
    """Every two levels, for each metric of the table (levels, blocks, metrics), complete."""
    if table.shape[1] < 2 or len(table) > MOST_PAIRS:
        return [() for _ in range(table.shape[2])]
    half, means = half_width(table), table.mean(1)
    found = []
    for at in range(table.shape[2]):
        changes = [(a, b, float(means[b, at] - means[a, at])) for a, b in combinations(range(len(table)), 2)]
        found.append(tuple(Pair(a, b, change, change - half[at], change + half[at]) for a, b, change in changes))
    return found
