"""What a sweep shows: means with intervals, paired differences, the best for the cost, and people's votes.

The random unit is the seed. One seed's noise is in many cells, so intervals and tests resample whole seeds. Pictures,
prompts and other axes are fixed: nothing is claimed about pictures that were not tried.
"""

from i2v_lab.statistics.best import best_within, cheapest, pareto
from i2v_lab.statistics.columns import clip_seconds, metric_column, more_is_better, peak_memory
from i2v_lab.statistics.differences import Difference, contrasts, differences, holm
from i2v_lab.statistics.intervals import by_value, interval
from i2v_lab.statistics.votes import ranking

__all__ = [
    "Difference", "best_within", "by_value", "cheapest", "clip_seconds", "contrasts", "differences", "holm", "interval",
    "metric_column", "more_is_better", "pareto", "peak_memory", "ranking",
]  # fmt: skip
