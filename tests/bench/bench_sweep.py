"""What a sweep costs beside its clips: `python tests/bench/bench_sweep.py`. Figures are printed, not asserted; compare within one run."""

from __future__ import annotations

import logging
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.metrics import METRICS
from i2v_lab.report import notebook
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, plan_sweep, run_sweep

BASE = {"image": "sample:coffee", "prompt": "zoom in", "resolution": "256p", "num_frames": 8, "num_inference_steps": 10}
SMALL = Path(__file__).parent.parent / "notebooks" / "which_kernel.ipynb"  # runs the sweep, and nothing else


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of some work."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def twelve_cells(folder: Path) -> None:
    """The same twelve clips by several ways. The two that are close are run in turn, five times each.

    Of the two the fastest tries are compared, and the seconds of the CPU too: on a machine that others use, these are steadier.
    Both ways measure each clip after it is made.
    """
    settings = Settings()
    sweep = Sweep(name="bench", base=BASE, axes={"guidance_scale": "3..12 step 3"}, seeds=[0, 1, 2])
    cells = sweep.cells()
    whole, kernels = (Store(folder / name) for name in ("whole", "kernels"))

    def loop(store: Store) -> None:
        for cell in cells:
            run_clip(cell.params, None, store, settings=settings)

    def a_notebook_a_cell() -> None:
        import papermill

        for cell in cells:
            given = notebook.parameters(Sweep(name="cell", base=cell.params.plain()), kernels, settings)
            papermill.execute_notebook(SMALL, None, given, progress_bar=False)  # a kernel each

    loop(Store(folder / "warm"))  # torch and the model are loaded
    run_sweep(sweep, whole, settings=settings)
    wall: dict[str, list[float]] = {"loop": [], "sweep": []}
    cpu: dict[str, list[float]] = {"loop": [], "sweep": []}
    for number in range(5):
        for name, work in (("loop", loop), ("sweep", partial(run_sweep, sweep, settings=settings))):
            before = time.process_time()
            wall[name].append(seconds(partial(work, store=Store(folder / f"{name}{number}"))))
            cpu[name].append(time.process_time() - before)
    took = {
        "12 x run_clip in a plain loop": min(wall["loop"]),
        "run_sweep": min(wall["sweep"]),
        "report of a finished sweep, in a notebook": seconds(partial(notebook.execute, [sweep], whole, settings)),
        "papermill, a notebook and a load a cell": seconds(a_notebook_a_cell),
    }
    least = next(iter(took.values()))
    for what, value in took.items():
        print(f"{what:<60} {value:8.2f} s  {value - least:+8.2f} s")
    for what, values in (("wall seconds", wall), ("CPU seconds", cpu)):
        print(f"{f'run_sweep to a plain loop, {what}':<60} {min(values['sweep']) / min(values['loop']):8.3f}")


def two_thousand_cells(folder: Path) -> None:
    """Plan, and a resume that finds all done, of 2,000 cells of the fake model."""
    store, settings = Store(folder / "many"), Settings()
    base = {"model": "fake", "image": "sample:coffee", "resolution": "64x64", "num_frames": 2, "num_inference_steps": 1}
    sweep = Sweep(name="many", base=base, axes={"seed": "1..2000 step 1"})
    plan_sweep(Sweep(name="warm", base=base), store, settings)
    print(f"{'plan of 2,000 cells, none done':<60} {seconds(lambda: plan_sweep(sweep, store, settings)):8.2f} s")
    like = RunRecord(id="-", status="done", model_name="fake", metrics=dict.fromkeys(METRICS, 0.0))
    records = []
    store.clips.mkdir(parents=True)
    for item in plan_sweep(sweep, store, settings).cells:
        clip = f"clips/{item.cell.number}.mp4"
        (store.directory / clip).touch()
        records.append(like.model_copy(update={"id": new_id(), "key": item.key, "params": item.cell.params, "clip": clip}))
    store.save_many(records)
    print(f"{'plan of 2,000 cells, all done':<60} {seconds(lambda: plan_sweep(sweep, store, settings)):8.2f} s")
    print(
        f"{'run_sweep of 2,000 cells, all done (first time)':<60} {seconds(lambda: run_sweep(sweep, store, settings=settings)):8.2f} s"
    )
    print(
        f"{'run_sweep of 2,000 cells, all done (again)':<60} {seconds(lambda: run_sweep(sweep, store, settings=settings)):8.2f} s"
    )


def memory(folder: Path) -> None:
    """Python's memory after 20 and after 200 cells of one sweep that were really run."""
    store, settings = Store(folder / "memory"), Settings()
    base = {"model": "fake", "image": "sample:coffee", "resolution": "64x64", "num_frames": 2, "num_inference_steps": 1}
    sweep = Sweep(name="memory", base=base, axes={"seed": "1..200 step 1"})
    held: dict[int, float] = {}

    def look(cell: object, record: RunRecord) -> None:
        number = getattr(cell, "number", 0)
        if number in (20, 200):
            held[number] = tracemalloc.get_traced_memory()[0] / 2**20

    tracemalloc.start()
    run_sweep(sweep, store, settings=settings, on_cell=look)
    tracemalloc.stop()
    print(f"{'memory held after 20 cells, after 200':<60} {held[20]:8.2f} MiB {held[200]:8.2f} MiB")


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        two_thousand_cells(Path(folder))
        memory(Path(folder))
        twelve_cells(Path(folder))


if __name__ == "__main__":
    main()
