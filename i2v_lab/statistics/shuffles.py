"""Shuffles of whole axes within blocks, and the statistics that are compared over them: arrays only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import permutations, product
from math import factorial

import numpy as np
import numpy.typing as npt

from i2v_lab.statistics.columns import Numbers

LEVEL = 0.95
DRAWS = 2000  # of shuffles; all of them where there are fewer
SHARED = 4  # degrees of freedom of the inflation that all metrics share
ROUNDING = 1e-9  # equal statistics differ by so much

Orders = npt.NDArray[np.int64]  # (draws, blocks, levels): which level's value takes the place; the first is the identity


def usable(y: Numbers) -> tuple[Numbers, list[list[int]]]:
    """The array without levels that have clips of fewer than half the blocks; and the levels that are kept of each axis."""
    blocks, kept = y.shape[-2], []
    for axis in range(y.ndim - 2):
        levels = np.moveaxis(y, axis, 0)
        there = there_in(levels.reshape(len(levels), -1, *levels.shape[-2:]))
        keep = [level for level in range(len(levels)) if there[level].any(0).sum() >= max(2, blocks / 2)]
        y = np.take(y, keep, axis)
        kept.append(keep)
    return y, kept


def there_in(y: Numbers) -> npt.NDArray[np.bool_]:
    """Where all metrics of a clip are known; one dimension less than y."""
    return np.asarray(np.isfinite(y).all(-1))


def main_table(y: Numbers, axis: int) -> Numbers:
    """(levels, blocks, metrics): means over those slices of the other axes in which every level of the block is there."""
    levels, blocks, metrics = y.shape[axis], y.shape[-2], y.shape[-1]
    y = np.moveaxis(y, axis, 0).reshape(levels, -1, blocks, metrics)
    there = there_in(y)
    table = np.full((levels, blocks, metrics), np.nan)
    for block in range(blocks):
        some = there[:, :, block].any(1)
        if not there[some, :, block].all(0).any():
            some = there[:, there[:, :, block].sum(0).argmax(), block]
        if some.sum() > 1:
            table[some, block] = y[some][:, there[some, :, block].all(0), block].mean(1)
    return table


def shuffles(tables: Sequence[Numbers], draws: int, rng: np.random.Generator) -> list[Orders]:
    """The shuffles of each axis, drawn together; absent levels stay in place. All of them where there are few."""
    there = [there_in(table).T for table in tables]  # (blocks, levels) an axis
    parts = [(axis, block, np.flatnonzero(row)) for axis, rows in enumerate(there) for block, row in enumerate(rows)]
    size = 1
    for _, _, free in parts:
        size = min(size * factorial(len(free)), 10**9)
    total = min(size, draws)
    orders = [np.tile(np.arange(rows.shape[1]), (total, rows.shape[0], 1)) for rows in there]
    if size <= draws:
        for draw, choice in enumerate(product(*(permutations(free) for _, _, free in parts))):
            for (axis, block, free), order in zip(parts, choice, strict=True):
                orders[axis][draw, block, free] = order
        return orders
    for axis, block, free in parts:
        drawn = rng.random((total, len(free))).argsort(1)
        drawn[0] = np.arange(len(free))
        orders[axis][:, block, free] = free[drawn]
    return orders


def contrasts(levels: int) -> Numbers:
    """Orthonormal polynomials over the order of the levels: (levels, levels - 1); the first is the straight line."""
    powers = np.vander(np.linspace(-1, 1, levels), levels, increasing=True)
    basis, triangle = np.linalg.qr(powers)
    return np.asarray((basis * np.sign(np.diag(triangle)))[:, 1:])


def labelled(sizes: Sequence[int], ordered: Sequence[bool]) -> tuple[Numbers, list[tuple[int, ...]]]:
    """The contrasts of one axis or of two that cross, and to which group each belongs: -1 along categories."""
    basis: Numbers = np.ones((1, 1))
    labels: list[tuple[int, ...]] = [()]
    for levels, in_order in zip(sizes, ordered, strict=True):
        basis = np.asarray(np.kron(basis, contrasts(levels)), np.float64)
        labels = [(*old, degree if in_order else -1) for old in labels for degree in range(levels - 1)]
    return basis, labels


def statistic_of(
    table: Numbers, orders: Orders, sizes: Sequence[int], ordered: Sequence[bool]
) -> tuple[Numbers, Numbers, dict[tuple[int, ...], Numbers]]:
    """The statistic of each shuffle (draws, metrics); the observed contrasts; {group: its statistic, its squared error}.

    It is the mean square of a group of contrasts (straight, bent; all of them for categories), the largest of the groups, over the
    residual. The residual is inflated by how much that group differs between blocks: the metric's own ratio, drawn to the mean of
    all metrics'. Without that, noise that is smooth along the axis would be taken for a trend.
    """
    blocks = table.shape[1]
    there = there_in(table)
    table = np.nan_to_num(table - np.nanmean(table, 0, keepdims=True))
    basis, labels = labelled(sizes, ordered)
    total = square = np.zeros((len(orders), basis.shape[1], table.shape[2]))
    weight = np.zeros((basis.shape[1], 1))
    for block in range(blocks):
        z = basis.T @ table[orders[:, block], block]  # (draws, contrasts, metrics)
        own = basis[there[:, block]].var(0)[:, None] * there[:, block].sum() + 1e-9  # 1 where the block is complete
        total, square, weight = total + z, square + z**2 / own, weight + own
    between = total**2 / weight
    within = np.maximum(square - between, 0)
    scale = (table**2).sum((0, 1)) + 1e-300
    residual = np.maximum(within.sum(1), 1e-9 * scale) / (basis.shape[1] * (blocks - 1))
    groups = {}
    for group in sorted({label for label in labels if max(label) < 2}):
        mine = [place for place, label in enumerate(labels) if label == group]
        ratio = within[:, mine].sum(1) / (len(mine) * (blocks - 1)) / residual
        factor = np.maximum((SHARED * ratio.mean(1, keepdims=True) + (blocks - 1) * ratio) / (SHARED + blocks - 1), 1e-9)
        error = residual * factor
        groups[group] = np.stack([between[:, mine].sum(1) / len(mine) / error, error / np.mean(weight)])
    return np.max([found[0] for found in groups.values()], axis=0), (total / weight)[0], groups


def span(sizes: Sequence[int], group: Sequence[int]) -> float:
    """From a contrast to an amount: end less beginning of a line, middle less ends of a parabola; products of two axes."""
    found = 1.0
    for levels, degree in zip(sizes, group, strict=True):
        own = contrasts(levels)[:, degree]
        x = np.linspace(-1, 1, levels)
        line = np.polynomial.polynomial.Polynomial.fit(x, own, degree + 1)
        found *= float(line(1.0) - line(-1.0)) if degree == 0 else float(line(0.0) - line(1.0))
    return found


def half_width(table: Numbers, level: float = LEVEL) -> Numbers:
    """How far the means of two levels must be apart, for intervals of all pairs that hold together.

    Residuals are shuffled within blocks; the largest difference in its standard errors, over all pairs and metrics, is the quantile.
    (Shuffles of the values would claim pairs that do not differ where others do.) Of two levels it is Student's t.

    Args:
        table: (levels, blocks) or (levels, blocks, metrics), complete, with at least two blocks.

    Returns:
        A number a metric, in its unit.
    """
    from scipy import stats

    table = table.reshape(*table.shape[:2], -1)
    levels, blocks, metrics = table.shape
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean((0, 1))

    def error(mean: Numbers) -> Numbers:
        squares = (rest**2).sum((0, 1)) - blocks * (mean**2).sum(-2)
        return np.asarray(np.sqrt(np.maximum(squares, 0) / ((levels - 1) * (blocks - 1)) * 2 / blocks))

    if levels == 2:
        quantile = float(stats.t.ppf(1 - (1 - level) / 2 / metrics, blocks - 1))
    else:
        order = np.random.default_rng(0).random((DRAWS, blocks, levels)).argsort(-1)
        mean = np.sum([rest[order[:, block], block] for block in range(blocks)], axis=0) / blocks  # (draws, levels, metrics)
        reach = (mean.max(1) - mean.min(1)) / np.maximum(error(mean), 1e-300)
        quantile = float(np.quantile(reach.max(1), level))
    return quantile * error(np.zeros((levels, metrics)))


def unevenness(rest: Numbers) -> Numbers:
    """The largest standard deviation of a level over the smallest (at most 100), a number a metric; 1 where chance explains it.

    By Cochran's (1941) C: the largest sum of squares of a level over that of all, against normal noise, at 1 %.

    Args:
        rest: residuals (levels, blocks, metrics): block and level means are taken off.
    """
    levels, blocks, metrics = rest.shape
    if levels < 3 or blocks < 2:
        return np.ones(metrics)
    own = (rest**2).sum(1)
    # A block's mean holds a part of each level's deviation: the mean squares are more even than the variances are.
    variance = (own - own.sum(0) / (levels * (levels - 1))) / (1 - 2 / levels)
    top = variance.max(0)
    ratio = np.sqrt(top / np.maximum(variance.min(0), top / 100**2 + 1e-300))
    return np.where(own.max(0) > _cochran(levels, blocks) * own.sum(0), ratio, 1.0)


@cache
def _cochran(levels: int, blocks: int) -> float:
    """The C of residuals of normal noise, the highest 1 %."""
    rest = np.random.default_rng(0).standard_normal((1000, levels, blocks))
    rest = rest - rest.mean(1, keepdims=True) - rest.mean(2, keepdims=True) + rest.mean((1, 2), keepdims=True)
    own = (rest**2).sum(2)
    return float(np.quantile(own.max(1) / own.sum(1), 0.99))


def is_smooth(rest: Numbers, orders: Orders) -> bool:
    """Whether residuals (levels, blocks, metrics) are more alike at neighbouring levels than in 95 % of the shuffles."""
    scale = np.sqrt((rest**2).mean((0, 1))) + 1e-300
    steps = np.zeros(len(orders))
    for block in range(rest.shape[1]):
        own = (rest[:, block] / scale)[orders[:, block]]
        steps += (np.diff(own, axis=1) ** 2).sum((1, 2))
    return bool((steps <= steps[0] * (1 + ROUNDING)).mean() <= 1 - LEVEL)
