"""Plots of metrics against each swept parameter, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from i2v_lab import statistics
from i2v_lab.report.player.grid import plain_values
from i2v_lab.report.style import (
    STYLES,
    Along,
    NotebookFigure,
    error_bars,
    metric_label,
    new_figure,
    nothing_measured,
    shown_axes,
    shown_metrics,
)
from i2v_lab.report.words import phrase
from i2v_lab.statistics.intervals import SEEDS_MIN

if TYPE_CHECKING:
    import pandas as pd


def metric_plots(table: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str] | None = None) -> list[NotebookFigure]:
    """Metrics against each swept parameter: one figure for each axis, with a panel for each metric.

    Points are means over all clips at that value, bars their 95 % intervals over seeds, small dots the clips. With fewer than three
    seeds there are no bars.

    Args:
        table: one row a run. axes: the swept columns.
        metrics: names or columns; None: those of SHOWN that have values.

    Returns:
        Figures 9 inches wide; none where there are no metrics, or only the seed was swept. Pictures have a figure only
        where no other axis was swept: otherwise the means are over them.

    Raises:
        InputError: an axis or a metric is no column of the table.
    """
    names = shown_metrics(table) if metrics is None else list(metrics)
    columns = [statistics.metric_column(table, name) for name in names]
    return [_metric_figure(table, axis, columns) for axis in shown_axes(table, axes)] if columns else []


def _metric_figure(table: pd.DataFrame, axis: str, columns: Sequence[str]) -> NotebookFigure:
    along = Along(table, axis)
    wide = min(3, len(columns))
    rows = -(-len(columns) // wide)
    figure = new_figure(2.5 * rows + 0.35 + along.room)
    panels = figure.subplots(rows, wide, squeeze=False).ravel()
    means = statistics.by_value(table, axis, columns)
    for panel, column in zip(panels, columns, strict=False):
        _draw_metric(panel, table, along, column, means[means["metric"] == column])
        panel.ticklabel_format(axis="y", useOffset=False)
        along.name(panel)
    for panel in panels[len(columns) :]:
        panel.set_visible(False)
    seeds = len(set(plain_values(table, "seed"))) if "seed" in table else 1
    key = "plot.metrics_one" if seeds < 2 else "plot.metrics_two" if seeds < SEEDS_MIN else "plot.metrics"
    figure.explain(phrase(key), along.listed)
    return figure


def _draw_metric(panel: Axes, table: pd.DataFrame, along: Along, column: str, means: pd.DataFrame) -> None:
    panel.set_title(metric_label(column), fontsize=9, loc="left")
    if means.empty:
        nothing_measured(panel)
        return
    shown = table[column].astype("float64").where(table["status"] == "done")
    panel.plot(along.at, shown, ".", color="#8c959f", markersize=3, zorder=1)
    means = means.assign(at=[along.places[value] for value in means["value"]]).sort_values("at")
    colour, marker, _ = STYLES[0]
    joined = all(isinstance(value, (int, float)) for value in means["value"])
    panel.errorbar(means["at"], means["mean"], yerr=error_bars(means), color=colour, marker=marker, markersize=5, capsize=4,
                   linewidth=1.4, elinewidth=1.2, linestyle="-" if joined else "none", zorder=2)  # fmt: skip
