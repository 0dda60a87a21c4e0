"""Sweeps: many clips from a base and axes. Defined here, planned, run and resumed; batches too.

from i2v_lab.sweep import Sweep, run_sweep
sweep = Sweep(name="guidance", base={"image": "sample:coffee", "prompt": "zoom in"}, axes={"guidance_scale": "2..14 step 4"})
run_sweep(sweep).table()
"""

from i2v_lab.sweep.batch import read_rows, run_batch
from i2v_lab.sweep.definition import Cell, Sweep
from i2v_lab.sweep.file import load_sweep, open_sweep, parse_sweep, with_options
from i2v_lab.sweep.loop import SweepResult, run_sweep
from i2v_lab.sweep.status import SweepProgress, SweepStatus
from i2v_lab.sweep.stop import SweepStop, ask_to_stop
from i2v_lab.sweep.sweep_plan import SweepPlan, plan_sweep

__all__ = [
    "Cell", "Sweep", "SweepPlan", "SweepProgress", "SweepResult", "SweepStatus", "SweepStop", "ask_to_stop", "load_sweep",
    "open_sweep", "parse_sweep", "plan_sweep", "read_rows", "run_batch", "run_sweep", "with_options",
]  # fmt: skip
