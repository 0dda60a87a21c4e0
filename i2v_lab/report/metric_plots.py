"""Plots of metrics against each swept parameter, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator

from i2v_lab import statistics
from i2v_lab.report.player.fonts import font_file
from i2v_lab.report.player.grid import plain_values, value_order
from i2v_lab.report.style import STYLES, UNITS, NotebookFigure, metric_label, plot_name, shown_axes, shown_metrics, value_names

if TYPE_CHECKING:
    import pandas as pd

_SHORT = 10  # characters: longer names of values are listed below the plot, by number


def metric_plots(table: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str] | None = None) -> list[Figure]:
    """Metrics against each swept parameter: one figure for each axis, with a panel for each metric.

    Points are means over all clips at that value, bars their 95 % intervals over seeds, small dots the clips. With one seed
    there are no bars.

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


def _metric_figure(table: pd.DataFrame, axis: str, columns: Sequence[str]) -> Figure:
    values = plain_values(table, axis)
    order = value_order(axis, values)
    numeric = axis not in ("seed", "resolution") and all(isinstance(value, (int, float)) for value in order)
    names = value_names(axis, order)
    numbered = not numeric and max(map(len, names)) > _SHORT
    wide = min(3, len(columns))
    rows = -(-len(columns) // wide)
    notes = [plot_name(f"{number}: {name}").replace("\n", " ") for number, name in enumerate(names, 1)] if numbered else []
    height = 2.5 * rows + 0.35 + 0.17 * len(notes)
    figure = NotebookFigure(figsize=(9, height), dpi=100, layout="constrained", facecolor="white")
    panels = figure.subplots(rows, wide, squeeze=False).ravel()
    places = {value: float(value) if numeric else float(number) for number, value in enumerate(order)}
    means = statistics.by_value(table, axis, columns)
    for panel, column in zip(panels, columns, strict=False):
        _draw_metric(panel, table, axis, column, places, means[means["metric"] == column])
        ticks = [str(number) for number in range(1, len(names) + 1)] if numbered else names
        _name_panel(panel, axis, places, None if numeric else ticks)
    for panel in panels[len(columns) :]:
        panel.set_visible(False)
    seeds = len(set(plain_values(table, "seed"))) if "seed" in table else 1
    said = "points: means; bars: 95 % interval over seeds; dots: clips" if seeds > 1 else "one seed: chance cannot be estimated"
    text = "\n".join([f"{said}; ↑ higher is better, ↓ lower is better", *notes])
    figure.supxlabel(text, fontproperties=FontProperties(fname=font_file(text), size=8))
    return figure


def _draw_metric(panel: Axes, table: pd.DataFrame, axis: str, column: str, places: dict[Any, float], means: pd.DataFrame) -> None:
    panel.set_title(metric_label(column), fontsize=9, loc="left")
    if means.empty:
        panel.text(0.5, 0.5, "nothing measured", transform=panel.transAxes, ha="center", va="center", color="#57606a")
        return
    done = table["status"] == "done"
    at = [places[value] for value in plain_values(table[done], axis)]
    panel.plot(at, table.loc[done, column].astype("float64"), ".", color="#8c959f", markersize=3, zorder=1)
    means = means.assign(at=[places[value] for value in means["value"]]).sort_values("at")
    colour, marker, _ = STYLES[0]
    joined = all(isinstance(value, (int, float)) for value in means["value"])
    bars = [(means["mean"] - means["low"]).fillna(0).clip(lower=0), (means["high"] - means["mean"]).fillna(0).clip(lower=0)]
    panel.errorbar(means["at"], means["mean"], yerr=bars, color=colour, marker=marker, markersize=5, capsize=4, linewidth=1.4,
                   elinewidth=1.2, linestyle="-" if joined else "none", zorder=2)  # fmt: skip


def _name_panel(panel: Axes, axis: str, places: dict[Any, float], names: list[str] | None) -> None:
    unit = f" ({UNITS[axis]})" if axis in UNITS and axis != "resolution" else ""
    panel.set_xlabel(axis + unit, fontsize=8)
    panel.tick_params(labelsize=8)
    panel.yaxis.set_major_locator(MaxNLocator(5))
    panel.ticklabel_format(axis="y", useOffset=False)
    at = sorted(places.values())
    margin = 0.08 * (at[-1] - at[0]) if names is None else 0.5
    panel.set_xlim(at[0] - margin, at[-1] + margin)
    if names is not None:
        panel.set_xticks(at, names, fontproperties=FontProperties(fname=font_file("".join(names)), size=8))
    elif len(at) <= 8:
        panel.set_xticks(at, [f"{place:g}" for place in at])
    panel.grid(True, color="#d0d7de", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
