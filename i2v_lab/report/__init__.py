"""The report of a sweep: the grid of clips, its video, plots, findings in sentences, and the notebook that shows them.

Each name is imported when it is first used: the player, which pages share, needs no plots.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submod_attrs={
    "cost_plots": ["cost_plots"],
    "cost_sentences": ["cost_findings"],
    "html_file": ["export_html"],
    "metric_plots": ["metric_plots"],
    "mosaic": ["grid_video"],
    "pareto": ["pareto_clips", "pareto_plot"],
    "player.page": ["ClipGrid", "clip_grid"],
    "sentences": ["Findings", "findings"],
})  # fmt: skip
