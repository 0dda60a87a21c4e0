"""What a sweep can show: the least change that is found in 8 of 10 such sweeps.

Measured by experiments/check_statistics.py: straight changes from one end of the axis to the other, nine metrics that go together
(correlation 0.7), normal noise. In standard deviations of a paired difference: two settings, the same seed.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

# {settings: {seeds: (no metric named, one named)}}
_LEAST: dict[int, dict[int, tuple[float, float]]] = {
    2: {6: (3.5, 1.9), 8: (1.75, 1.25), 10: (1.4, 1.1)},
    3: {3: (5.9, 3.8), 4: (3.5, 2.6), 5: (2.7, 1.9), 6: (2.3, 1.75), 8: (1.8, 1.3), 10: (1.5, 1.2)},
    4: {2: (8.5, 5.1), 3: (4.3, 2.8), 4: (2.9, 2.0), 5: (2.3, 1.7), 6: (1.9, 1.45), 8: (1.6, 1.25), 10: (1.4, 1.1)},
    5: {2: (6.3, 3.9), 3: (3.4, 2.2), 4: (2.6, 1.9), 5: (2.25, 1.6), 6: (1.9, 1.5), 8: (1.5, 1.2), 10: (1.2, 0.9)},
}
_FEWEST = {2: 6, 3: 3}  # seeds: with fewer the shuffles are too few to reach 5 %


def fewest_seeds(settings: int) -> int:
    """With fewer seeds nothing can be shown about so many settings."""
    return _FEWEST.get(settings, 2)


def least_found(settings: int, seeds: int, named: bool = False) -> float:
    """The least change found in 8 of 10 sweeps; infinite where nothing can be found.

    Between the numbers of settings and seeds that were measured it takes the next smaller; above ten seeds it falls with the root.

    Args:
        settings: of one axis, at least 2. seeds: or blocks of picture and seed.
        named: whether the metric is the one that was asked about.
    """
    if seeds < fewest_seeds(settings):
        return math.inf
    known = _LEAST[max(size for size in _LEAST if size <= max(settings, 2))]
    counts = sorted(known)
    nearest = counts[max(bisect.bisect_right(counts, seeds) - 1, 0)]
    return known[nearest][named] * math.sqrt(min(1.0, counts[-1] / seeds))


@dataclass(frozen=True)
class Outlook:
    """What a sweep can show along one axis.

    Attributes:
        size: the least change found in 8 of 10 sweeps, in standard deviations; infinite where nothing can be found.
        more, better: with how many seeds it becomes better, and the size then.
    """

    axis: str
    settings: int
    seeds: int
    size: float
    more: int
    better: float

    def __str__(self) -> str:
        many = f"{self.axis}, {self.settings} settings, {self.seeds} seed{'s' * (self.seeds != 1)}"
        if math.isinf(self.size):
            return f"{many}: can show nothing; {self.more} seeds can"
        return f"{many}: changes above {self.size:.2g} standard deviations; {self.more} seeds: {self.better:.2g}"


def outlook(axes: Sequence[tuple[str, int]], seeds: int, named: str = "") -> list[Outlook]:
    """What a sweep can show along each of its axes.

    Args:
        axes: (name, settings) of each that has several.
        seeds: or blocks of picture and seed. named: the metric that is asked about.
    """
    found = []
    for name, settings in axes:
        more = max(2 * seeds if seeds >= fewest_seeds(settings) else 0, fewest_seeds(settings))
        sizes = [least_found(settings, count, bool(named)) for count in (seeds, more)]
        found.append(Outlook(name, settings, seeds, sizes[0], more, sizes[1]))
    return found


def outlook_line(axes: Sequence[tuple[str, int]], seeds: int, named: str = "") -> str:
    """The outlook in a line: "guidance_scale, 5 settings, 3 seeds: changes above 3.4 standard deviations; 6 seeds: 1.9"."""
    parts = "; ".join(map(str, outlook(axes, seeds, named)))
    return parts + (f" (of {named})" if named and parts else "")
