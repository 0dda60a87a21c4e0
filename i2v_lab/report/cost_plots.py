"""The cost of a sweep: seconds and peak memory against each swept parameter."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator

from i2v_lab.errors import InputError
from i2v_lab.report.player.fonts import font_file
from i2v_lab.report.player.grid import plain_values, value_order
from i2v_lab.report.style import STYLES, UNITS, NotebookFigure, plot_name, value_names
from i2v_lab.statistics import clip_seconds, peak_memory

if TYPE_CHECKING:
    import pandas as pd

_LONG = 12  # characters: categories with longer names are listed at the left, where there is room for them
_CROWDED = 12  # points: with more, the spread is drawn as a band


@dataclass(frozen=True)
class _Measure:
    """What a panel shows: a value for each row of the table (NaN where there is none), and the label of the axis."""

    values: pd.Series[float]
    label: str


def cost_plots(table: pd.DataFrame, axes: Sequence[str]) -> list[Figure]:
    """Seconds and peak memory against each swept parameter: one figure an axis, two panels each.

    Points are means over the finished cells. Bars (bands, where there are many points) go from the lowest to the highest value.
    Points of a numeric axis are joined by lines, one line for each value of another axis that has two to six values. Bars
    are over the remaining axes, seeds among them. The seed has a figure only where nothing else was swept. Cells that did
    not finish are crosses at the edge.

    Args:
        table: one row a run, with seconds_total, seconds_load, and peak_ram_gib or peak_vram_allocated_gib.
        axes: the swept columns.

    Returns:
        Figures 9 inches wide; none where the table has no runs.

    Raises:
        InputError: an axis is not a column of the table.
    """
    if unknown := [axis for axis in axes if axis not in table.columns]:
        raise InputError(f"axes: expected columns of the table, got {', '.join(map(repr, unknown))}")
    shown = [axis for axis in axes if axis != "seed"] or list(axes)
    figures = []
    for axis in shown if len(table) else ():
        lines = _lines_axis(table, axis, axes)
        over = [other for other in axes if other not in (axis, lines) and len(set(plain_values(table, other))) > 1]
        figures.append(_cost_figure(table, axis, lines, over))
    return figures


def _lines_axis(table: pd.DataFrame, axis: str, axes: Sequence[str]) -> str | None:
    """The axis that has one line for each of its values."""
    values = {other: plain_values(table, other) for other in axes if other not in (axis, "seed")}
    along = plain_values(table, axis)
    for other, found in values.items():
        together = len(set(zip(along, found, strict=True))) == len(set(along))  # it changes with the axis: its lines would be one
        if 2 <= len(set(found)) <= len(STYLES) and not together:
            return other
    return None


def _cost_figure(table: pd.DataFrame, axis: str, lines: str | None, over: Sequence[str]) -> Figure:
    """`lines` is the axis with one line for each value; `over` are the axes that the bars are over."""
    memory, kind = peak_memory(table)
    measures = [_Measure(clip_seconds(table), "time per clip, model loaded (s)"), _Measure(memory, f"{kind} (GiB)")]
    values = plain_values(table, axis)
    order = value_order(axis, values)
    numeric = axis not in ("seed", "resolution") and all(isinstance(value, (int, float)) for value in order)
    names = [plot_name(text) for text in value_names(axis, order)]
    upright = numeric or (max(map(len, names)) <= _LONG and len(names) <= 8)
    lines_each = max(1 + name.count("\n") for name in names)
    height = 3.4 if upright else max(2.4, 1.2 + len(names) * (0.08 + 0.18 * lines_each))
    figure = NotebookFigure(figsize=(9, height), dpi=100, layout="constrained", facecolor="white")
    panels = figure.subplots(1, 2, sharey=not upright)
    places = [float(value) if numeric else float(order.index(value)) for value in values]
    spreads = [
        _draw_panel(panel, table, places, lines, measure, numeric, upright) for panel, measure in zip(panels, measures, strict=True)
    ]
    for panel, measure in zip(panels, measures, strict=True):
        _name_axes(panel, axis, measure.label, None if numeric else names, sorted(set(places)), upright)
    if not upright:
        panels[0].invert_yaxis()
        panels[1].set_ylabel("")
    if any(spreads):
        figure.supxlabel(
            "points: means; bars or bands: lowest to highest" + (f" over {', '.join(over)}" if over else ""), fontsize=8
        )
    handles, labels = panels[0].get_legend_handles_labels()
    if lines or "not finished" in labels:
        by_label = dict(sorted(zip(labels, handles, strict=True), key=lambda pair: pair[0] == "not finished"))
        title = lines and lines + (f" ({UNITS[lines]})" if lines in UNITS else "")
        look: dict[str, Any] = {"loc": "outside right upper", "frameon": False, "handlelength": 3.2, "alignment": "left"}
        look["prop"] = FontProperties(fname=font_file("".join(labels)), size=9)
        figure.legend(list(by_label.values()), list(by_label), title=title, **look)
    return figure


def _draw_panel(
    panel: Axes, table: pd.DataFrame, places: list[float], lines: str | None, measure: _Measure, joined: bool, upright: bool
) -> bool:
    """Draw the points of one panel and their spread. Returns whether there is a spread."""
    done = (table["status"] == "done").tolist()
    split = plain_values(table, lines) if lines else [None] * len(table)
    order = value_order(lines, split) if lines else [None]
    highest, spreads = 0.0, False
    for number, value in enumerate(order):
        groups: dict[float, list[float]] = {}
        for place, own, amount, finished in zip(places, split, measure.values.tolist(), done, strict=True):
            if own == value and finished and not math.isnan(amount):
                groups.setdefault(place, []).append(amount)
        if not groups:
            continue
        at = sorted(groups)
        # Side by side, where no lines separate them.
        shift = 0.0 if joined else 0.12 * (number - (len(order) - 1) / 2)
        label = plot_name(value_names(lines, order)[number]) if lines else "mean"
        spreads |= _draw_series(
            panel, [place + shift for place in at], [groups[place] for place in at], number, label, joined, upright
        )
        highest = max(highest, *map(max, groups.values()))
    if not highest:
        panel.text(0.5, 0.5, "nothing measured", transform=panel.transAxes, ha="center", va="center", color="#57606a")
    (panel.set_ylim if upright else panel.set_xlim)(0, 1.1 * highest or 1)
    _draw_unfinished(panel, sorted({place for place, finished in zip(places, done, strict=True) if not finished}), upright)
    return spreads


def _draw_series(
    panel: Axes, at: list[float], amounts: list[list[float]], number: int, label: str, joined: bool, upright: bool
) -> bool:
    """Draw one line, or one set of points, with the spread of each. Returns whether there is a spread."""
    colour, marker, line = STYLES[number]
    means = [sum(found) / len(found) for found in amounts]
    low, high = [min(found) for found in amounts], [max(found) for found in amounts]
    spreads = any(below < above for below, above in zip(low, high, strict=True))
    look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": line if joined else "none", "markersize": 6}
    look |= {"linewidth": 1.5, "label": label}
    if len(at) > _CROWDED and joined:
        panel.plot(at, means, markevery=(number, max(1, len(at) // 10)), **look)
        if spreads:
            panel.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
        return spreads
    if spreads:
        bars = [[max(mean - below, 0.0) for mean, below in zip(means, low, strict=True)],
                [max(above - mean, 0.0) for mean, above in zip(means, high, strict=True)]]  # fmt: skip
        look |= {"yerr" if upright else "xerr": bars, "capsize": 4, "elinewidth": 1}
    panel.errorbar(*((at, means) if upright else (means, at)), **look)
    return spreads


def _draw_unfinished(panel: Axes, places: list[float], upright: bool) -> None:
    if not places:
        return
    edge = [0.03] * len(places)
    transform = panel.get_xaxis_transform() if upright else panel.get_yaxis_transform()
    look: dict[str, Any] = {"marker": "x", "color": "black", "linestyle": "none", "markersize": 8, "clip_on": False}
    panel.plot(*((places, edge) if upright else (edge, places)), transform=transform, label="not finished", **look)


def _name_axes(panel: Axes, axis: str, measure: str, names: list[str] | None, places: list[float], upright: bool) -> None:
    """Set labels with units, and ticks where the values are."""
    along, amount = (panel.xaxis, panel.yaxis) if upright else (panel.yaxis, panel.xaxis)
    along.set_label_text(axis + (f" ({UNITS[axis]})" if axis in UNITS and axis != "resolution" else ""))
    amount.set_label_text(measure)
    amount.set_major_locator(MaxNLocator(6 if upright else 5))
    low, high = places[0], places[-1]
    margin = 0.06 * (high - low) if names is None and high > low else 0.5 if names else max(abs(low), 1) * 0.5
    (panel.set_xlim if upright else panel.set_ylim)(low - margin, high + margin)
    if names is not None:
        along.set_ticks(range(len(names)), names, fontproperties=FontProperties(fname=font_file("".join(names)), size=9))
    elif len(places) <= 8 and all(after - before > 0.07 * (high - low) for before, after in itertools.pairwise(places)):
        along.set_ticks(places, [f"{place:g}" for place in places])
    else:
        along.set_major_locator(MaxNLocator(8, integer=all(place == int(place) for place in places)))
    panel.grid(True, color="#d0d7de", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
