"""What a sweep found: metrics against each swept parameter with intervals, what no setting beats for its cost, and sentences.

Every sentence is made from the table's numbers by `statistics`; where one seed was run it says that nothing can be said.
"""

from i2v_lab.findings.cost import pareto_clips, pareto_plot, settings_table
from i2v_lab.findings.plots import metric_plots
from i2v_lab.findings.sentences import Findings, findings

__all__ = ["Findings", "findings", "metric_plots", "pareto_clips", "pareto_plot", "settings_table"]
