"""What a cluster costs and gives on CPUs: `python tests/bench/bench_cluster.py`. Figures are printed, not asserted; compare within one run.

1. The overhead of a cell: a sweep on one worker of one thread against a plain loop in a process of one thread, in turn.
2. Two workers of one thread each against one process of two threads, in turn.

`python tests/bench/bench_cluster.py 1 4`: so many pairs, and cells (default: 4 pairs of 10 cells; some five minutes).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, SweepProgress, SweepStatus, run_sweep

BASE = {"image": "sample:coffee", "prompt": "zoom in", "resolution": "256p", "num_frames": 8, "num_inference_steps": 10}
OVERHEAD_MAX = 0.050  # seconds a cell


class Clock(SweepProgress):
    """When the first cell began."""

    began = 0.0

    def cell(self, status: SweepStatus) -> None:
        self.began = self.began or time.perf_counter()


def seconds(cells: int, threads: int, workers: int) -> float:
    """Seconds of a sweep from its first cell to its end; a plain one where there are no workers. Models are warm before."""
    clock, base = Clock(), {**BASE, "num_inference_steps": 11}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        cluster = {"address": "local", "workers": workers, "threads": threads} if workers else {}
        settings = Settings.model_validate({"output": {"directory": folder}, "cluster": cluster})
        if not workers:
            run_sweep(Sweep(name="warm", base=base), store, settings=settings)
        # The first clip of each worker loads what it needs: it is not counted.
        ends: list[float] = []
        seeds = list(range(cells + workers))
        run_sweep(Sweep(name="bench", base=BASE, seeds=seeds), store, settings=settings, progress=clock,
                  on_cell=lambda cell, record: ends.append(time.perf_counter()))  # fmt: skip
        return ends[-1] - (ends[workers - 1] if workers else clock.began)


def in_a_process(cells: int, threads: int, workers: int) -> float:
    """The same in a process of so many threads."""
    command = [sys.executable, __file__, "alone", str(cells), str(threads), str(workers)]
    out = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True,
                         check=True).stdout  # fmt: skip
    return float(out.split()[-1])


def main(pairs: int = 4, cells: int = 10) -> None:
    """Print both."""
    plain, one = [], []
    for _ in range(pairs):
        plain.append(in_a_process(cells, 1, 0) / cells)
        one.append(in_a_process(cells, 1, 1) / cells)
    extra = [with_ray - without for with_ray, without in zip(one, plain, strict=True)]
    print(f"a cell in a plain loop {statistics.median(plain):.3f} s, on a worker {statistics.median(one):.3f} s")
    print(f"overhead a cell: median {statistics.median(extra) * 1000:+.0f} ms, {min(extra) * 1000:+.0f} to {max(extra) * 1000:+.0f} ms "
          f"(expected below {OVERHEAD_MAX * 1000:.0f})")  # fmt: skip
    ratios = [in_a_process(cells, 2, 0) / in_a_process(cells, 1, 2) for _ in range(pairs)]
    print(
        f"one process of two threads to two workers of one thread: {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["alone"]:
        print(seconds(*map(int, sys.argv[2:])))
    else:
        main(*map(int, sys.argv[1:]))
