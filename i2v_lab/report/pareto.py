"""Quality against cost: the settings that no other setting beats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from i2v_lab import statistics
from i2v_lab.report.player.fonts import drawable, font_file
from i2v_lab.report.player.grid import in_words, labels
from i2v_lab.report.style import STYLES, error_bars, metric_label, new_figure, plot_name, shown_axes, tidy

if TYPE_CHECKING:
    import pandas as pd

QUALITIES = ("prompt_agreement", "drift_ssim", "input_ssim", "smoothness")  # the first that has values is plotted against cost
_LABELS = 8  # settings that are named in the plot of quality and cost


def settings_table(table: pd.DataFrame, axes: Sequence[str], quality: str, cost: str = "seconds") -> pd.DataFrame:
    """The rows of `statistics.settings`, each with its label; settings without a clip are left out.

    Raises:
        InputError: a metric or an axis that is not there, a metric without a better side, or another cost.
    """
    shown = shown_axes(table, axes)
    found = statistics.settings(table, shown, quality, cost)
    found = found[found["run"].notna()] if len(found) else found
    words = dict(zip(table.index, map(in_words, labels(table, shown)), strict=True))
    return found.assign(
        label=[(words[run] or "all clips") + _lacking(int(lost)) for run, lost in zip(found["run"], found["missing"], strict=True)]
    )


def _lacking(clips: int) -> str:
    return f" ({clips} clip{'s' * (clips != 1)} missing)" if clips else ""


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

    Grey settings are beaten for sure; hollow ones are not on the line, but cannot be told from it by chance.

    Args:
        quality: a metric; None: agreement with the prompt, or the next of QUALITIES that was measured.
        settings: from `settings_table`, to save time.

    Returns:
        The figure, 9 inches wide; None where nothing was measured.
    """
    if (name := _quality(table, quality)) is None:
        return None
    found = settings_table(table, axes, name, cost) if settings is None else settings
    found = found[found["mean"].notna()]
    if found.empty:
        return None
    figure = new_figure(3.8)
    panel = figure.subplots()
    front = found[found["front"]].sort_values("cost")
    look: dict[str, Any] = {"color": "#8c959f", "markersize": 5, "capsize": 3, "elinewidth": 1}
    beaten, open_ = found[found["beaten"]], found[~found["beaten"]]
    panel.errorbar(beaten["cost"], beaten["mean"], yerr=error_bars(beaten), fmt="o", label="beaten for sure", **look)
    panel.errorbar(
        open_["cost"], open_["mean"], yerr=error_bars(open_), fmt="o", mfc="white", label="may be beaten by chance", **look
    )
    panel.plot(
        front["cost"], front["mean"], color=STYLES[1][0], marker="s", markersize=7, linewidth=1.4, label="no mean beats these"
    )
    for number, (_, row) in enumerate(front.iterrows()):
        if number < _LABELS:
            text = plot_name(drawable(str(row["label"]))).replace("\n", " ")
            panel.annotate(text, (row["cost"], row["mean"]), xytext=(8, -12), textcoords="offset points",
                           fontproperties=FontProperties(fname=font_file(text), size=8))  # fmt: skip
    panel.set_xlabel("time per clip, model loaded (s)" if cost == "seconds" else f"{statistics.peak_memory(table)[1]} (GiB)")
    panel.set_ylabel(metric_label(name))
    panel.set_xlim(0, 1.35 * float(found["cost"].max()) or 1)
    panel.margins(y=0.12)  # a label is below its point
    tidy(panel)
    panel.legend(loc="best", frameon=False, fontsize=8)
    return figure


def pareto_clips(table: pd.DataFrame, axes: Sequence[str], quality: str | None = None, cost: str = "seconds") -> pd.DataFrame:
    """The rows of the table to show beside `pareto_plot`: the first clip of each setting that no other beats."""
    if (name := _quality(table, quality)) is None:
        return table.iloc[:0]
    found = settings_table(table, axes, name, cost)
    return table.loc[found[found["front"]].sort_values("cost")["run"].tolist()]
