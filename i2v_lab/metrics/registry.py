"""The metrics: what each is, in which unit, from where to where, and whether more of it is better.

The table in docs/metrics.md is made from this.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Metric:
    """One number of a clip.

    Attributes:
        name: its column in the table of runs is metric_<name>.
        title: in a plot. chinese: the same, in a report's Chinese sentences.
        formula: what is computed, in words and symbols.
        unit: "" where it has none.
        low, high: its range.
        better: whether more is better; None if it only says how much.
        source: where it comes from.
        proxy: whether it replaces a metric that needs a learned network.
        note: what else to know when reading it.
        depends_on: what else than the content of a clip decides it, of size, fps, num_frames and codec: two clips that differ in
            one of these cannot be compared by this metric.
    """

    name: str
    title: str
    chinese: str
    formula: str
    source: str
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    better: bool | None = None
    proxy: bool = False
    note: str = ""
    depends_on: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        """Title and unit, for an axis of a plot."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def arrow(self) -> str:
        """In words: which side is better."""
        return {True: "more is better", False: "less is better", None: "says how much"}[self.better]


_FILE = Path(__file__).with_name("metrics.toml")  # one table a metric
METRICS: dict[str, Metric] = {
    name: Metric(name, depends_on=frozenset(fields.pop("depends_on", ())), **fields)
    for name, fields in tomllib.loads(_FILE.read_text("utf-8")).items()
}
"""Every metric, by name, in the order of the tables."""


MARKS = ("black_frames", "noise_frames", "frozen_frames", "repeated_frames")
"""Metrics that say whether it is a clip at all."""
_FLAWS = {"black": ("black_frames", 0.5), "noise": ("noise_frames", 0.5), "frozen": ("frozen_frames", 1.0)}


def flaw(values: Mapping[str, float | None]) -> str:
    """What makes a clip no clip: "black" or "noise" (half of its frames or more), "frozen" (all); "" where it is one.

    Args:
        values: metrics by name, such as those of a record.
    """
    return next((word for word, (name, least) in _FLAWS.items() if (values.get(name) or 0) >= least), "")


def markdown() -> str:
    """The table of the docs."""
    rows = ["| Metric | Formula | Unit | Range | | Compare at one | Source |", "|---|---|---|---|---|---|---|"]
    for metric in METRICS.values():
        ends = ["" if math.isinf(end) else f"{end:g}" for end in (metric.low, metric.high)]
        extent = (
            f"{ends[0]} to {ends[1]}" if all(ends) else f"{ends[0]} and up" if ends[0] else f"up to {ends[1]}" if ends[1] else "any"
        )
        source = f"proxy, {metric.source}" if metric.proxy else metric.source
        # A bar would end the cell.
        formula = metric.formula.replace("|", "\\|") + (f". {metric.note[0].upper()}{metric.note[1:]}" if metric.note else "")
        same = ", ".join(sorted(metric.depends_on))
        rows.append(f"| `{metric.name}` | {formula} | {metric.unit} | {extent} | {metric.arrow} | {same} | {source} |")
    return "\n".join(rows) + "\n"
