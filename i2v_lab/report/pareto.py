"""Quality against cost: the settings that no other setting beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from i2v_lab import statistics
from i2v_lab.errors import InputError
from i2v_lab.report.player.fonts import drawable, font_file
from i2v_lab.report.player.grid import in_words, labels, plain_values
from i2v_lab.report.style import STYLES, error_bars, metric_label, new_figure, plot_name, shown_axes, tidy

if TYPE_CHECKING:
    import pandas as pd

QUALITIES = ("prompt_agreement", "drift_ssim", "input_ssim", "smoothness")  # the first that has values is plotted against cost
_LABELS = 8  # settings that are named in the plot of quality and cost


def settings_table(table: pd.DataFrame, axes: Sequence[str], quality: str, cost: str = "seconds") -> pd.DataFrame:
    """The quality and the cost of each setting of a sweep, over its seeds and pictures.

    Args:
        quality: a metric whose higher or lower values are better. cost: "seconds" or "memory" (GiB).

    Returns:
        One row a setting: label, mean, low, high (of the quality; the interval is over seeds), cost (mean), clips, front
        (no setting beats it), run (the index in `table` of its first clip). None where nothing was measured.

    Raises:
        InputError: a metric or an axis that is not there, a metric without a better side, or another cost.
    """
    import pandas as pd

    column = statistics.metric_column(table, quality)
    better = statistics.more_is_better(column)
    if better is None or cost not in ("seconds", "memory"):
        wrong = f"quality: expected a metric of which more or less is better, got {quality!r}"
        raise InputError(wrong if better is None else f"cost: expected seconds or memory, got {cost!r}")
    costs = statistics.clip_seconds(table) if cost == "seconds" else statistics.peak_memory(table)[0]
    known = ((table["status"] == "done") & table[column].notna() & costs.notna()).tolist()
    groups: dict[str, list[int]] = {}
    for place, own in enumerate(labels(table, shown_axes(table, axes))):
        if known[place]:
            groups.setdefault(in_words(own), []).append(place)
    rows = []
    seeds = plain_values(table, "seed") if "seed" in table else [None] * len(table)
    for label, at in groups.items():
        amounts = table[column].astype("float64").iloc[at].tolist()
        low, high = statistics.interval(amounts, [seeds[place] for place in at])
        rows.append(
            (label or "all clips", sum(amounts) / len(at), low, high, float(costs.iloc[at].mean()), len(at), table.index[at[0]])
        )
    found = pd.DataFrame(rows, columns=["label", "mean", "low", "high", "cost", "clips", "run"])
    front = statistics.pareto(found["mean"].tolist(), found["cost"].tolist(), more_is_better=better)
    return found.assign(front=pd.Series(front, index=found.index, dtype=bool))


def _quality(table: pd.DataFrame, quality: str | None) -> str | None:
    return quality or next(
        (name for name in QUALITIES if f"metric_{name}" in table and table[f"metric_{name}"].notna().any()), None
    )


def pareto_plot(
    table: pd.DataFrame,
    axes: Sequence[str],
    quality: str | None = None,
    cost: str = "seconds",
    settings: pd.DataFrame | None = None,
) -> Figure | None:
    """Quality against cost, a point for each setting; the settings that no other beats are joined and named.

    Args:
        quality: a metric; None: agreement with the prompt, or the next of QUALITIES that was measured.
        settings: from `settings_table`, to save time.

    Returns:
        The figure, 9 inches wide; None where nothing was measured.
    """
    if (name := _quality(table, quality)) is None:
        return None
    found = settings_table(table, axes, name, cost) if settings is None else settings
    if found.empty:
        return None
    figure = new_figure(3.8)
    panel = figure.subplots()
    front = found[found["front"]].sort_values("cost")
    look: dict[str, Any] = {"color": "#8c959f", "markersize": 5, "capsize": 3, "elinewidth": 1, "label": "settings"}
    panel.errorbar(found["cost"], found["mean"], yerr=error_bars(found), fmt="o", **look)
    panel.plot(
        front["cost"], front["mean"], color=STYLES[1][0], marker="s", markersize=7, linewidth=1.4, label="no setting beats these"
    )
    for number, (_, row) in enumerate(front.iterrows()):
        if number < _LABELS:
            text = plot_name(drawable(str(row["label"]))).replace("\n", " ")
            panel.annotate(text, (row["cost"], row["mean"]), xytext=(8, -12), textcoords="offset points",
                           fontproperties=FontProperties(fname=font_file(text), size=8))  # fmt: skip
    panel.set_xlabel("time per clip, model loaded (s)" if cost == "seconds" else f"{statistics.peak_memory(table)[1]} (GiB)")
    panel.set_ylabel(metric_label(name))
    panel.set_xlim(0, 1.35 * float(found["cost"].max()) or 1)
    tidy(panel)
    panel.legend(loc="best", frameon=False, fontsize=8)
    return figure


def pareto_clips(table: pd.DataFrame, axes: Sequence[str], quality: str | None = None, cost: str = "seconds") -> pd.DataFrame:
    """The rows of the table to show beside `pareto_plot`: the first clip of each setting that no other beats."""
    if (name := _quality(table, quality)) is None:
        return table.iloc[:0]
    found = settings_table(table, axes, name, cost)
    return table.loc[found[found["front"]].sort_values("cost")["run"].tolist()]
