"""What a plan costs: `python tests/bench/bench_planner.py`. Figures are printed, not asserted; compare within one run."""

from __future__ import annotations

import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from i2v_lab.clip.params import ClipParams
from i2v_lab.cost import Budget, Forecaster, plan
from i2v_lab.models.memory import cost_cache
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, plan_sweep


def seconds(what: str, work: Callable[[], object]) -> None:
    """Print wall and CPU seconds of some work."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    print(f"{what:<70} {time.perf_counter() - wall:8.3f} s  CPU {time.process_time() - cpu:8.3f} s", flush=True)


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        store, settings = Store(Path(folder) / "results"), Settings(device="cpu")
        tiny, large = ClipParams(image="sample:coffee"), ClipParams(image="sample:coffee", model="i2vgen-xl")
        plan(tiny)
        seconds("closed-form: a plan", lambda: plan(tiny, store=store))
        seconds("closed-form: a plan, once more", lambda: plan(tiny, store=store))
        everything = Budget(2**50, "no limit")
        seconds(
            "I2VGen-XL: the first plan (imports, configs, four networks)", lambda: plan(large, device="cuda", budget=everything)
        )
        longer = large.replace(num_frames=12)
        seconds("I2VGen-XL: more frames", lambda: plan(longer, device="cuda", budget=everything))
        wider = large.replace(resolution="448x768")
        seconds("I2VGen-XL: another size", lambda: plan(wider, device="cuda", budget=everything))
        seconds("I2VGen-XL: that size again", lambda: plan(wider, device="cuda", budget=everything))
        base = {"model": "i2vgen-xl", "image": "sample:coffee", "prompt": "zoom in"}
        axes = {"resolution": ["256p", "320x512", "384x640", "448x768", "512p"], "num_frames": [4, 8, 16, 24],
                "guidance_scale": "5..9 step 1"}  # fmt: skip
        sweep = Sweep(name="bench", base=base, axes=axes, seeds=[0, 1])
        print(f"a sweep of {len(sweep.cells())} cells, 20 shapes")
        cold = Forecaster(device="cuda", budget=everything)
        seconds("  plans, cold, on a card without a limit", lambda: [cold.plan(cell.params) for cell in sweep.cells()])
        cost_cache.forget()
        seconds("  the sweep's plan on this machine, first time", lambda: plan_sweep(sweep, store, settings))
        cost_cache.forget()
        seconds("  the sweep's plan on this machine, from the disk", lambda: plan_sweep(sweep, store, settings))
        seconds("  the sweep's plan on this machine, once more", lambda: plan_sweep(sweep, store, settings))


if __name__ == "__main__":
    main()
