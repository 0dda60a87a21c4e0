"""1,000 cells on 1 to 64 workers, simulated: what speeds up, what limits it, and what the driver can take.

`python experiments/cluster_simulation.py`: it first measures how many clips a second this machine puts into a store, as the driver of a
cluster does, and then has virtual workers ask the driver of that speed for cells. The times of cells and loads are those of `CASES`, or of a
table of runs: `python experiments/cluster_simulation.py results/sweeps/NAME/table.csv`.
"""

from __future__ import annotations

import heapq
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.cluster import Pool
from i2v_lab.run import run_clip
from i2v_lab.run.task import Task
from i2v_lab.settings import Settings
from i2v_lab.store import Store

CELLS, WORKERS, MODELS = 1000, (1, 2, 4, 8, 16, 32, 64), 2
CLIP_BYTES = 2_000_000


@dataclass(frozen=True)
class Case:
    """A kind of sweep: seconds of a cell (median), the spread of its logarithm, and seconds of loading a model."""

    name: str
    cell: float
    spread: float
    load: float


def simulate(case: Case, workers: int, driver: float, seed: int = 0) -> tuple[float, float, float]:
    """(seconds until all cells are kept, share of the workers' time that loads take, share of the time that the driver works).

    A worker takes the next cell of the model that it has, otherwise of the one with the most cells left; it has its next cell when the driver
    has heard of the last, and the driver keeps one clip after the other.

    Args:
        driver: seconds that it takes to keep a clip.
    """
    luck = random.Random(seed)  # noqa: S311  a simulation
    left = {model: [luck.lognormvariate(0, case.spread) * case.cell for _ in range(CELLS // MODELS)] for model in range(MODELS)}
    loaded: dict[int, int] = {}
    free = [(0.0, worker) for worker in range(workers)]
    driver_free = loads = 0.0
    while any(left.values()):
        now, worker = heapq.heappop(free)
        model = loaded.get(worker, -1)
        began = now
        if not left.get(model):
            model = max(left, key=lambda one: len(left[one]))
            began += case.load
            loads += case.load
        loaded[worker] = model
        ended = began + left[model].pop()
        driver_free = max(driver_free, ended) + driver
        heapq.heappush(free, (max(ended, driver_free - driver), worker))
    total = max(driver_free, *(when for when, _ in free))
    return total, loads / (total * workers), CELLS * driver / total


def clips_a_second(count: int = 200) -> float:
    """How many clips a second the driver keeps: the record checked, the bytes in a file on the disk, its name, the record in the database."""
    with tempfile.TemporaryDirectory() as folder:
        store, data = Store(Path(folder)), bytes(CLIP_BYTES)
        pool = Pool(store, Settings())  # without workers
        params = ClipParams(image="sample:coffee", model="closed-form")
        tasks = [Task(number, params, sweep="s", key=str(number)) for number in range(count)]
        sent = [RunRecord(id=task.id, status="done", params=params, clip="clips/x.mp4").model_dump_json() for task in tasks]
        began = time.perf_counter()
        for task, text in zip(tasks, sent, strict=True):
            store.save(RunRecord(id=task.id, status="running", params=params, sweep="s", key=task.key))
            pool.keep(task, text, data)
        return count / (time.perf_counter() - began)


def measured_here() -> Case:
    """A cell of the closed-form model as it is on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        store, seconds = Store(Path(folder)), []
        for seed in range(4):
            params = ClipParams(image="sample:coffee", model="closed-form", resolution="256p", num_frames=8, seed=seed)
            seconds.append(run_clip(params, None, store, settings=Settings()).seconds)
        cells = sorted(found["total"] - found["load"] for found in seconds[1:])
        return Case("closed-form 256p here", cells[1], 0.05, seconds[0]["load"])


def of_table(path: Path) -> Case:
    """The cells of a sweep that was run: the table of its folder."""
    import numpy as np
    import pandas as pd

    table = pd.read_csv(path)
    table = table[table["status"] == "done"]
    seconds = np.log((table["seconds_total"] - table["seconds_load"]).to_numpy(float))
    return Case(path.parent.name, float(np.exp(np.median(seconds))), float(seconds.std()), float(table["seconds_load"].max()))


def main() -> None:
    rate = clips_a_second()
    print(f"the driver keeps {rate:.0f} clips of {CLIP_BYTES / 1e6:g} MB a second on this machine")
    assumed = [Case("assumed: 30 s a cell, 20 s a load", 30, 0.3, 20), Case("assumed: 5 min a cell, 2 min a load", 300, 0.3, 120)]
    for case in [measured_here(), *(of_table(Path(name)) for name in sys.argv[1:]), *assumed]:
        print(f"\n{case.name}: {CELLS} cells of {case.cell:.3g} s, {MODELS} models of {case.load:.3g} s to load")
        print(f"{'workers':>8} {'time':>10} {'speed-up':>9} {'loads':>7} {'driver':>7}  limit")
        one = simulate(case, 1, 1 / rate)[0]
        for workers in WORKERS:
            total, loads, driver = simulate(case, workers, 1 / rate)
            short = one / total / workers
            limit = (
                "" if short > 0.9 else "the driver" if driver > 0.9 else "loads" if loads > 1 - short - 0.05 else "the last cells"
            )
            print(f"{workers:8} {total:8.0f} s {one / total:8.1f}x {loads:7.1%} {driver:7.1%}  {limit}")


if __name__ == "__main__":
    main()
