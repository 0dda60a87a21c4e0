"""1,000 cells on 1 to 64 workers, simulated: what speeds up, what limits it, and what the driver can take.

`python experiments/cluster_simulation.py`: it first measures how many clips a second this machine puts into a store, as the driver of a
cluster does. Then virtual workers ask a driver of that speed for cells. The times of cells and loads are measured here, assumed (`ASSUMED`),
or those of a table of runs: `python experiments/cluster_simulation.py results/sweeps/NAME/table.csv`.
"""

from __future__ import annotations

import heapq
import random
import sys
import tempfile
import time
from collections import deque
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


ASSUMED = (Case("assumed: 30 s a cell, 20 s a load", 30, 0.3, 20), Case("assumed: 5 min a cell, 2 min a load", 300, 0.3, 120))


@dataclass(frozen=True)
class Result:
    """Seconds until all cells are kept; and the shares of the workers' time that they load, wait for the driver, or have no cell left."""

    seconds: float
    loads: float
    waits: float
    idle: float


def simulate(case: Case, workers: int, driver: float, seed: int = 0) -> Result:
    """Virtual workers make the cells.

    A worker takes the next cell of the model that it has, otherwise the first that is left, as the pool does. The driver hears of one clip
    after the other: it gives the worker its next cell, then keeps the clip.

    Args:
        driver: seconds that it takes to keep a clip.
    """
    luck = random.Random(seed)  # noqa: S311  a simulation
    left = [deque(luck.lognormvariate(0, case.spread) * case.cell for _ in range(CELLS // MODELS)) for _ in range(MODELS)]
    loaded: dict[int, int] = {}
    ends = [(0.0, worker) for worker in range(workers)]
    driver_free = loads = waits = busy = 0.0
    while ends:
        now, worker = heapq.heappop(ends)
        began = max(now, driver_free)
        driver_free = began + driver if worker in loaded else began
        model = loaded.get(worker, 0)
        if not left[model]:
            others = [one for one in range(MODELS) if left[one]]
            if not others:
                continue
            model = others[0]
        load = case.load if loaded.get(worker) != model else 0.0
        cell = left[model].popleft()
        loaded[worker] = model
        waits, loads, busy = waits + began - now, loads + load, busy + cell
        heapq.heappush(ends, (began + load + cell, worker))
    total = driver_free * workers
    return Result(driver_free, loads / total, waits / total, 1 - (loads + waits + busy) / total)


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
    for case in [measured_here(), *(of_table(Path(name)) for name in sys.argv[1:]), *ASSUMED]:
        print(f"\n{case.name}: {CELLS} cells of {case.cell:.3g} s, {MODELS} models of {case.load:.3g} s to load")
        print(f"{'workers':>8} {'time':>10} {'speed-up':>9} {'loads':>7} {'driver':>7} {'end':>7}")
        one = simulate(case, 1, 1 / rate).seconds
        for workers in WORKERS:
            found = simulate(case, workers, 1 / rate)
            print(
                f"{workers:8} {found.seconds:8.0f} s {one / found.seconds:8.1f}x {found.loads:7.1%} {found.waits:7.1%} {found.idle:7.1%}"
            )
    print("\nshares of the workers' time: loading models; waiting for the driver; without a cell at the end")


if __name__ == "__main__":
    main()
