"""The cost of a sweep: seconds and peak memory against each swept parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties

from i2v_lab.report.player.fonts import font_file
from i2v_lab.report.player.grid import check_axes, plain_values, value_order
from i2v_lab.report.style import STYLES, Along, NotebookFigure, axis_title, new_figure, nothing_measured, plot_name, value_names
from i2v_lab.report.words import phrase
from i2v_lab.statistics import clip_seconds, peak_memory, timing

if TYPE_CHECKING:
    import pandas as pd

_CROWDED = 12  # points: with more, the spread is drawn as a band


def cost_plots(table: pd.DataFrame, axes: Sequence[str]) -> list[NotebookFigure]:
    """Seconds and peak memory against each swept parameter: one figure an axis, two panels each.

    Points are means over the finished cells; the first clip of a shape counts like the others of its setting. Bars (bands, where
    there are many points) go from the lowest to the highest value.
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
    check_axes(table, axes)
    shown = [axis for axis in axes if axis != "seed"] or list(axes)
    return [_cost_figure(table, axis, axes) for axis in shown if len(table)]


def _lines_axis(table: pd.DataFrame, axis: str, axes: Sequence[str]) -> str | None:
    """The axis that has one line for each of its values."""
    values = {other: plain_values(table, other) for other in axes if other not in (axis, "seed")}
    along = plain_values(table, axis)
    for other, found in values.items():
        together = len(set(zip(along, found, strict=True))) == len(set(along))  # it changes with the axis: its lines would be one
        if 2 <= len(set(found)) <= len(STYLES) and not together:
            return other
    return None


def _cost_figure(table: pd.DataFrame, axis: str, axes: Sequence[str]) -> NotebookFigure:
    lines = _lines_axis(table, axis, axes)
    over = [other for other in axes if other not in (axis, lines) and len(set(plain_values(table, other))) > 1]
    memory, kind = peak_memory(table)
    along = Along(table, axis)
    figure = new_figure(3.4 + along.room)
    panels = figure.subplots(1, 2)
    spreads = False
    for panel, amounts, label in zip(
        panels,
        (clip_seconds(timing.as_warm(table, axes)), memory),
        ("time per clip, model loaded (s)", f"{kind} (GiB)"),
        strict=True,
    ):
        spreads |= _draw_panel(panel, table, along, lines, amounts.tolist())
        panel.set_ylabel(label, fontsize=8)
        along.name(panel)
    said = phrase("plot.cost_over", axes=", ".join(over)) if over else phrase("plot.cost")
    figure.explain(said if spreads else None, along.listed)
    handles, labels = panels[0].get_legend_handles_labels()
    if lines or "not finished" in labels:
        by_label = dict(sorted(zip(labels, handles, strict=True), key=lambda pair: pair[0] == "not finished"))
        look: dict[str, Any] = {"loc": "outside right upper", "frameon": False, "handlelength": 3.2, "alignment": "left"}
        look["prop"] = FontProperties(fname=font_file("".join(labels)), size=9)
        figure.legend(list(by_label.values()), list(by_label), title=lines and axis_title(lines), **look)
    return figure


def _draw_panel(panel: Axes, table: pd.DataFrame, along: Along, lines: str | None, amounts: list[float]) -> bool:
    """Draw the points of one panel and their spread. Returns whether there is a spread."""
    done = (table["status"] == "done").tolist()
    split = plain_values(table, lines) if lines else [None] * len(table)
    order = value_order(lines, split) if lines else [None]
    highest, spreads = 0.0, False
    for number, value in enumerate(order):
        groups: dict[float, list[float]] = {}
        for place, own, amount, finished in zip(along.at, split, amounts, done, strict=True):
            if own == value and finished and not math.isnan(amount):
                groups.setdefault(place, []).append(amount)
        if groups:
            # Side by side, where no lines separate them.
            shift = 0.0 if along.numeric else 0.12 * (number - (len(order) - 1) / 2)
            label = plot_name(value_names(lines, order)[number]) if lines else "mean"
            spreads |= _draw_series(panel, dict(sorted(groups.items())), shift, number, label, along.numeric)
            highest = max(highest, *map(max, groups.values()))
    if not highest:
        nothing_measured(panel)
    panel.set_ylim(0, 1.1 * highest or 1)
    if lost := sorted({place for place, finished in zip(along.at, done, strict=True) if not finished}):
        look: dict[str, Any] = {"marker": "x", "color": "black", "linestyle": "none", "markersize": 8, "clip_on": False}
        panel.plot(lost, [0.03] * len(lost), transform=panel.get_xaxis_transform(), label="not finished", **look)
    return spreads


def _draw_series(panel: Axes, groups: dict[float, list[float]], shift: float, number: int, label: str, joined: bool) -> bool:
    """Draw one line, or one set of points, with the spread of each. Returns whether there is a spread."""
    colour, marker, line = STYLES[number]
    at = [place + shift for place in groups]
    means, low, high = (np.array([of(found) for found in groups.values()]) for of in (np.mean, np.min, np.max))
    look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": line if joined else "none", "markersize": 6}
    look |= {"linewidth": 1.5, "label": label}
    crowded = len(at) > _CROWDED and joined
    if (spreads := bool((low < high).any())) and not crowded:
        look |= {"yerr": [np.maximum(means - low, 0), np.maximum(high - means, 0)], "capsize": 4, "elinewidth": 1}
    elif spreads:
        panel.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
    panel.errorbar(at, means, markevery=(number, max(1, len(at) // 10)) if crowded else None, **look)
    return spreads
