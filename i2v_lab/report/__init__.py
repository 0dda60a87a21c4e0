"""The report of a sweep: the grid of clips, its video, plots, findings in sentences, and the notebook that shows them."""

from i2v_lab.report.cost_plots import cost_plots
from i2v_lab.report.html_file import export_html
from i2v_lab.report.metric_plots import metric_plots
from i2v_lab.report.mosaic import grid_video
from i2v_lab.report.pareto import pareto_clips, pareto_plot
from i2v_lab.report.player.page import ClipGrid, clip_grid
from i2v_lab.report.sentences import Findings, findings
from i2v_lab.statistics import cheapest

__all__ = [
    "ClipGrid", "Findings", "cheapest", "clip_grid", "cost_plots", "export_html", "findings", "grid_video", "metric_plots",
    "pareto_clips", "pareto_plot",
]  # fmt: skip
