"""What a sweep shows: effects that would hold with other seeds, means with intervals, the best for the cost, people's votes.

The random unit is the seed. One seed's noise is in many cells, so whole axes are shuffled within seeds. Prompts and other axes are
fixed, and so is a picture, unless several were swept: then a block is a picture and a seed.
"""

from i2v_lab.statistics.best import best_within, cheapest, pareto, settings
from i2v_lab.statistics.columns import clip_seconds, metric_column, more_is_better, peak_memory
from i2v_lab.statistics.design import Axis, Design, design
from i2v_lab.statistics.effects import Effect, Pair, effects
from i2v_lab.statistics.intervals import by_value, interval
from i2v_lab.statistics.prices import prices
from i2v_lab.statistics.shuffles import usable
from i2v_lab.statistics.votes import ranking

__all__ = [
    "Axis", "Design", "Effect", "Pair", "best_within", "by_value", "cheapest", "clip_seconds", "design", "effects", "interval",
    "metric_column", "more_is_better", "pareto", "peak_memory", "prices", "ranking", "settings", "usable",
]  # fmt: skip
