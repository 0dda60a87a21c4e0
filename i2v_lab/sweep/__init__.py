"""Sweeps: many clips from a base and axes. Defined here, planned, run, resumed; shown by report.py.

from i2v_lab.sweep import Sweep, run_sweep
sweep = Sweep(name="guidance", base={"image": "sample:coffee", "prompt": "zoom in"}, axes={"guidance_scale": "2..14 step 4"})
run_sweep(sweep).table()
"""

from i2v_lab.sweep.definition import Cell, Sweep
from i2v_lab.sweep.file import load_sweep, open_sweep, parse_sweep, with_options
from i2v_lab.sweep.loop import SweepResult, open_folder, run_sweep
from i2v_lab.sweep.planning import SweepPlan, plan
from i2v_lab.sweep.progress import Standing, SweepProgress, SweepSwitch

__all__ = [
    "Cell", "Standing", "Sweep", "SweepPlan", "SweepProgress", "SweepResult", "SweepSwitch", "load_sweep", "open_folder",
    "open_sweep", "parse_sweep", "plan", "run_sweep", "with_options",
]  # fmt: skip
