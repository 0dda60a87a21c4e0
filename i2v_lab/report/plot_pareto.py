"""Quality against cost: the settings that no other setting beats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

from i2v_lab import statistics
from i2v_lab.report.best_setting import quality_of
from i2v_lab.report.player.fonts import drawable
from i2v_lab.report.player.grid import in_words, labels
from i2v_lab.report.style import STYLES, NotebookFigure, error_bars, metric_label, new_figure, shown_axes, tidy
from i2v_lab.report.words import Said, phrase
from i2v_lab.statistics import timing

if TYPE_CHECKING:
    import pandas as pd

_WIDE, _TALL = 11, 13  # pixels of a number
_LABELS = 8  # settings that are named in the plot of quality and cost


def settings_table(table: pd.DataFrame, axes: Sequence[str], quality: str, cost: str = "seconds") -> pd.DataFrame:
    """The rows of `statistics.settings`, each with its label; settings without a clip are left out.

    The first clip of a shape has the mean time of the other clips of its setting.

    Raises:
        InputError: a metric or an axis that is not there, a metric without a better side, or another cost.
    """
    shown = shown_axes(table, axes)
    found = statistics.settings(timing.as_warm(table, axes), shown, quality, cost)
    found = found[found["run"].notna()] if len(found) else found
    words = dict(zip(table.index, map(in_words, labels(table, shown)), strict=True))
    return found.assign(
        label=[(words[run] or "all clips") + _lacking(int(lost)) for run, lost in zip(found["run"], found["missing"], strict=True)]
    )


def _lacking(clips: int) -> str:
    return f" ({clips} clip{'s' * (clips != 1)} missing)" if clips else ""


def pareto_plot(
    table: pd.DataFrame, axes: Sequence[str], quality: str | None = None, cost: str = "seconds"
) -> NotebookFigure | None:
    """Quality against cost, a point for each setting; the settings that no other beats are joined, numbered and named below.

    Grey settings are beaten for sure; hollow ones are not on the line, but cannot be told from it by chance.

    Args:
        quality: a metric; None: agreement with the prompt, or the next of QUALITIES that was measured. cost: "seconds" or "memory".

    Returns:
        The figure, 6 inches wide; None where nothing was measured.
    """
    if (name := quality or quality_of(table)) is None:
        return None
    found = settings_table(table, axes, name, cost)
    found = found[found["mean"].notna()]
    if found.empty:
        return None
    front = found[found["front"]].sort_values("cost")
    named = front.head(_LABELS)
    figure = new_figure(3.6 + 0.17 * len(named), width=6)
    panel = figure.subplots()
    look: dict[str, Any] = {"color": "#8c959f", "markersize": 5, "capsize": 3, "elinewidth": 1, "fmt": "o"}
    beaten, open_ = found[found["beaten"]], found[~found["beaten"] & ~found["front"]]
    panel.errorbar(beaten["cost"], beaten["mean"], yerr=error_bars(beaten), **look)
    panel.errorbar(open_["cost"], open_["mean"], yerr=error_bars(open_), mfc="white", **look)
    panel.errorbar(front["cost"], front["mean"], yerr=error_bars(front), color=STYLES[1][0], marker="s", markersize=7, linewidth=1.4,
                   capsize=3, elinewidth=1)  # fmt: skip
    panel.set_xlabel("time per clip, model loaded (s)" if cost == "seconds" else f"{statistics.peak_memory(table)[1]} (GiB)")
    panel.set_ylabel(metric_label(name))
    panel.set_xlim(0, 1.15 * float(found["cost"].max()) or 1)
    panel.margins(y=0.18)
    tidy(panel)
    said = phrase("plot.pareto")
    if more := len(front) - len(named):
        rest = phrase("plot.unnamed", count=more)
        said = Said(f"{said.en} {rest.en}", said.zh + rest.zh)
    figure.explain(said, [drawable(str(label)) for label in named["label"]])
    put_numbers(figure, panel, *(list(zip(rows["cost"], rows["mean"], strict=True)) for rows in (named, found)))
    return figure


Points = Sequence[tuple[float, float]]


def put_numbers(figure: NotebookFigure, panel: Axes, points: Points, shown: Points) -> None:
    """Write 1, 2, ... beside the points, none over another or outside of the panel, and none over what is shown where there is room.

    A line leads to a number that is far from its point.
    """
    figure.draw_without_rendering()  # which settles where the panel is
    figure.set_layout_engine("none")
    each = 72 / figure.dpi  # of a pixel
    inside, numbers = panel.get_window_extent(), list[Bbox]()
    centres, taken = (panel.transData.transform(np.asarray(own, np.float64).reshape(-1, 2)) for own in (points, shown))
    markers = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in taken]
    for number, (point, (x, y)) in enumerate(zip(points, centres, strict=True), 1):
        around = [(x + far * math.cos(angle), y + far * math.sin(angle)) for far, angle in product(range(14, 600, 6), _ANGLES)]
        boxes = {at: Bbox.from_bounds(at[0] - _WIDE / 2, at[1] - _TALL / 2, _WIDE, _TALL) for at in around}
        free = [at for at, box in boxes.items() if _within(box, inside) and not any(box.overlaps(other) for other in numbers)]
        at = next((at for at in free if not any(boxes[at].overlaps(other) for other in markers)), free[0])
        numbers.append(boxes[at])
        far = math.dist(at, (x, y)) > 20
        arrow = {"arrowstyle": "-", "color": "#8c959f", "linewidth": 0.7, "shrinkA": 5, "shrinkB": 4} if far else None
        panel.annotate(str(number), point, xytext=((at[0] - x) * each, (at[1] - y) * each), textcoords="offset points", ha="center",
                       va="center", fontsize=9, fontweight="bold", arrowprops=arrow)  # fmt: skip


_ANGLES = [math.radians(degrees) for degrees in (60, 120, 90, 0, 180, 300, 240, 270, 30, 150, 330, 210)]


def _within(box: Bbox, outer: Bbox) -> bool:
    return bool(outer.x0 <= box.x0 and box.x1 <= outer.x1 and outer.y0 <= box.y0 and box.y1 <= outer.y1)


def pareto_clips(table: pd.DataFrame, axes: Sequence[str], quality: str | None = None, cost: str = "seconds") -> pd.DataFrame:
    """The rows of the table to show beside `pareto_plot`: the first clip of each setting that no other beats."""
    if (name := quality or quality_of(table)) is None:
        return table.iloc[:0]
    found = settings_table(table, axes, name, cost)
    return table.loc[found[found["front"]].sort_values("cost")["run"].tolist()]
