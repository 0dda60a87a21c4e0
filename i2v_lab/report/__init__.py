"""The report of a sweep: the grid of clips, its video, plots, findings in sentences, and the notebook that shows them.

Each name is imported when it is first used: the player, which pages share, needs no plots.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "cost_sentences": ["cost_findings"],
    "extras": ["plan_piece", "table_piece", "video"],
    "html_file": ["export_html"],
    "mosaic": ["grid_video"],
    "parts": ["cost_piece", "findings_piece", "metrics_piece", "pareto_piece"],
    "player.page": ["ClipGrid", "clip_grid"],
    "plot_cost": ["cost_plots"],
    "plot_metrics": ["metric_plots"],
    "plot_pareto": ["pareto_clips", "pareto_plot"],
    "speed": ["speed_piece"],
    "summary": ["Findings", "findings"],
    "top": ["heading"],
    "tune_pieces": ["tune_clips", "tune_file", "tune_found", "tune_heading", "tune_pareto", "tune_rounds"],
})  # fmt: skip
