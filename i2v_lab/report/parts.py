"""The sections of a report that findings and plots make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from i2v_lab.report.cost_sentences import cost_findings
from i2v_lab.report.pieces import Piece, folded, section
from i2v_lab.report.player.page import clip_grid
from i2v_lab.report.plot_cost import cost_plots
from i2v_lab.report.plot_metrics import metric_plots
from i2v_lab.report.plot_pareto import pareto_clips, pareto_plot
from i2v_lab.report.summary import findings
from i2v_lab.report.words import phrase

if TYPE_CHECKING:
    import pandas as pd

_CLIPS_BYTES = 15_000_000  # of the clips of the best settings


def findings_piece(table: pd.DataFrame, axes: Sequence[str], metric: str = "") -> Piece:
    """What was found, as a section; see `findings`."""
    found = findings(table, axes, metric=metric)
    return section("found.title", found.html(), text=str(found))


def metrics_piece(table: pd.DataFrame, axes: Sequence[str]) -> Piece:
    """The plots of metrics; nothing where there are none."""
    plots = "".join(figure.html() for figure in metric_plots(table, axes))
    return section("metrics.title", f"<p>{phrase('metrics.said').html()}</p>", plots) if plots else Piece("")


def pareto_piece(table: pd.DataFrame, axes: Sequence[str], quality: str | None = None) -> Piece:
    """Quality against cost, with a clip of each setting that no other beats; nothing where nothing was measured."""
    figure = pareto_plot(table, axes, quality)
    if figure is None:
        return Piece("")
    clips = clip_grid(pareto_clips(table, axes, quality), axes, limit_bytes=_CLIPS_BYTES)
    return section("pareto.title", figure.html(), folded(phrase("pareto.clips"), clips._repr_html_()))


def cost_piece(table: pd.DataFrame, axes: Sequence[str]) -> Piece:
    """What the sweep cost, in sentences and plots."""
    plots = "".join(figure.html() for figure in cost_plots(table, axes))
    return section("cost.title", cost_findings(table, axes).html(), plots)
