"""run_sweep: has the clips of a sweep made, here or on a cluster. Finished clips are used, and failures do not end it."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from i2v_lab import portable
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.publish import is_full, partial_file, writing
from i2v_lab.clip.record import RunRecord
from i2v_lab.cluster import Place, open_pool
from i2v_lab.devices.turns import lock_folder, turn
from i2v_lab.errors import Stop, StoreError, SweepError, WriteError
from i2v_lab.metrics.fill import fill_in, missing
from i2v_lab.rights import make_file, make_folder
from i2v_lab.run.task import Here, Maker, Task, anywhere
from i2v_lab.settings import Settings, load_settings
from i2v_lab.store import Store
from i2v_lab.store.sweeps import Member
from i2v_lab.sweep.definition import Cell, Sweep
from i2v_lab.sweep.status import CellProgress, SweepStatus
from i2v_lab.sweep.stop import SweepStop
from i2v_lab.sweep.sweep_plan import Planned, SweepPlan, params_json, plan_sweep, work
from i2v_lab.textfile import safe_csv

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

FOLDER = "sweeps"
SPARE_BYTES = 500_000  # of the disk, for the records and the tables beside a clip
TABLE_SECONDS = 10.0  # at least between two writes of the table
TABLE_SHARE = 100  # and this many times what the last write took, so that the table costs at most 1 % of the time
RETRY = {"failed": ("failed", "out_of_memory", "stopped"), "out_of_memory": ("out_of_memory",), "stopped": ("stopped",),
         "none": ("none",)}  # fmt: skip


@dataclass(frozen=True)
class SweepResult:
    """What a run of a sweep came to.

    Attributes:
        id: of the sweep; the name of its folder.
        folder: where table.csv, table.parquet and sweep.yaml are, absolute.
        axes: the swept fields, outermost first.
        counts: {status: cells}, of all cells; those not reached are planned.
        ran: how many cells this run took up.
        stopped: why it ended early; "" where it did not.
        store: where its runs are.
    """

    id: str
    folder: Path
    axes: tuple[str, ...]
    counts: dict[str, int]
    ran: int
    stopped: str = ""
    store: Store = field(repr=False, compare=False, default=None)  # type: ignore[assignment]

    @property
    def complete(self) -> bool:
        """Whether every cell has its clip."""
        return set(self.counts) <= {"done"}

    def table(self) -> pd.DataFrame:
        """One row a cell; see Store.runs."""
        return self.store.runs(sweep=self.id)


def retry_states(retry: str | Sequence[str]) -> tuple[str, ...]:
    """The states of cells that are run again: for failed all that ended without a clip, for none no state that a cell can have.

    Raises:
        SweepError: another word.
    """
    words = [retry] if isinstance(retry, str) else list(retry)
    for word in words:
        if word and word not in RETRY:
            raise SweepError(f"retry: expected {', '.join(RETRY)}, got {word!r}")
    return tuple(dict.fromkeys(state for word in words if word for state in RETRY[word]))


def run_cells(maker: Maker, tasks: Sequence[Task], watch: CellProgress) -> Iterator[tuple[Task, RunRecord]]:
    """The one loop over the cells of a sweep or the rows of a batch, made here or on a cluster.

    Yields:
        Each task that has ended, and its record.

    Raises:
        Stop: a stop was asked for. The records of clips that were cut short are yielded before.
    """
    with closing(maker.make(tasks, watch)) as made:
        for task, record in made:
            watch.ended(task.number, record.status == "done")
            yield task, record


def run_sweep(
    sweep: Sweep, store: Store | None = None, *, settings: Settings | None = None, progress: Progress | None = None,
    stop: SweepStop | None = None, retry: str | Sequence[str] = (), on_cell: Callable[[Cell, RunRecord], None] | None = None,
) -> SweepResult:  # fmt: skip
    """Make the clips of a sweep that are not there yet, in the order of its cells.

    A clip that was made before, by any sweep, is used. A cell that failed before is left alone unless `retry` says
    otherwise; one whose process was killed counts as not run. Started again with the same definition, a sweep goes on in
    its newest folder.

    Args:
        store: where clips and records go; None: the output folder of the settings.
        settings: as for run_clip.
        progress: hears every stage and step; a SweepProgress hears of the cells too. Stop raised by it ends the sweep.
        stop: ends the sweep once it is asked. Another process may ask by a file `stop` in the sweep's folder.
        retry: failed, out_of_memory or stopped: cells that ended so are run, and no others; failed means all three, and none
            no cell at all.
        on_cell: called with each cell that was run, and its record.

    Raises:
        SweepError: the sweep is wrong; nothing was run. StoreError: a record could not be written.
    """
    settings = settings or load_settings()
    store = store or Store(settings.output.directory)
    states = retry_states(retry)
    sweep = sweep.with_defaults(settings.model)
    watch = CellProgress(progress or Progress(), stop or SweepStop())
    with makers(store, settings, watch, wanted=RETRY["none"] != states) as (maker, places):
        planned, folder = _begin(sweep, store, settings, places)
        watch.stop.watch(folder)
        watch.begin(*_outlook(planned, folder, states))
        run = _SweepRun(sweep, folder, store, maker, watch, on_cell)
        stopped = ""
        try:
            if todo := planned.to_run(states):
                # Where nothing is to run there is no turn to wait for; on a GPU of a cluster its worker has it.
                devices = [device for device in planned.devices if not places or device == "cpu"]
                with turn(tuple(devices), f"the sweep {sweep.name}", watch.waiting) as waited:
                    if waited:  # the other sweep may have made some of it
                        planned = plan_sweep(sweep, store, settings, sweep_id=folder.name, places=places)
                        todo = planned.to_run(states)
                        watch.begin(*_outlook(planned, folder, states))
                    run.use(planned)
                    run.make(planned, todo)
            else:
                run.use(planned)
            run.fill_in_metrics(planned)
        except Stop as reason:
            stopped = str(reason)
        finally:
            run.write_table()
            watch.over(stopped or "over")
    counts = store.cell_counts(folder.name)
    return SweepResult(folder.name, folder, tuple(sweep.axis_names), counts, watch.status.ran, stopped, store)


@contextmanager
def makers(store: Store, settings: Settings, watch: CellProgress, wanted: bool = True) -> Iterator[tuple[Maker, list[Place]]]:
    """Who makes the clips by the settings: this process, or the workers of a cluster; and the places of those.

    Args:
        wanted: whether anything may have to be made; otherwise no cluster is worth its start.

    Raises:
        InputError: there is no such cluster. Stop: one was asked for while its workers began.
    """
    if not settings.cluster.address or not wanted:
        yield Here(store, settings), []
        return
    with open_pool(store, settings, watch.waiting) as pool:
        yield pool, pool.places


def _begin(sweep: Sweep, store: Store, settings: Settings, places: Sequence[Place]) -> tuple[SweepPlan, Path]:
    """The plan and the folder of a sweep: its newest folder where that has this very definition, otherwise a new one.

    The folder is results/sweeps/<name>-<time>. It holds sweep.yaml, and its cells are in the store.
    """
    definition = sweep.definition()
    newest = store.find_sweeps(sweep.name)[:1]
    planned = plan_sweep(sweep, store, settings, sweep_id=newest[0].id if newest else "", places=places)
    place = hashlib.sha256(os.fsencode(store.directory)).hexdigest()[:16]
    # A sweep that is started twice at once has one folder.
    with FileLock(lock_folder() / f"begin-{place}.lock"), writing(store.directory / FOLDER):
        newest = store.find_sweeps(sweep.name)[:1]
        if newest and newest[0].definition == definition and (store.directory / FOLDER / newest[0].id).is_dir():
            return planned, store.directory / FOLDER / newest[0].id
        folder = _new_folder(store.directory / FOLDER, sweep.name)
        try:
            make_file(folder / "sweep.yaml")
            (folder / "sweep.yaml").write_text(sweep.to_yaml(), encoding="utf-8")
            members = (Member(item.cell.number, item.key, params_json(item.cell.params)) for item in planned.cells)
            store.begin_sweep(folder.name, sweep.name, definition, members)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # nothing is in it, and nothing knows of it
            raise
    return planned, folder


def _new_folder(parent: Path, name: str) -> Path:
    moment = f"{datetime.now():%Y%m%d_%H%M%S}"
    for number in range(1000):
        folder = parent / (f"{name}-{moment}_{number}" if number else f"{name}-{moment}")
        try:
            make_folder(folder, exist_ok=False)
        except FileExistsError:
            continue
        return folder
    raise StoreError(f"{parent}: too many sweeps called {name} in one second")


def _outlook(planned: SweepPlan, folder: Path, states: Sequence[str]) -> tuple[SweepStatus, dict[int, float], float | None]:
    todo = planned.to_run(states)
    counts = planned.counts
    failed = sum(counts.get(state, 0) for state in RETRY["failed"])
    failed -= len(todo) if states else 0  # they are run again
    status = SweepStatus(folder.name, len(planned.cells), len(todo), done=counts.get("done", 0), failed=failed)
    return status, {item.cell.number: work(item.cell.params) for item in todo}, planned.expected(states)[0]


@dataclass
class _SweepRun:
    """A run of a sweep while it goes on. Nothing in it grows with the cells that are done."""

    sweep: Sweep
    folder: Path
    store: Store
    maker: Maker
    watch: CellProgress
    on_cell: Callable[[Cell, RunRecord], None] | None
    next_write: float = 0.0  # of the table

    def use(self, planned: SweepPlan) -> None:
        """Note the runs of before, whichever sweep made them; the table is there from the beginning.

        A cell whose run no longer is that of its key, because the picture changed or the clip is gone, has none.
        """
        self.store.set_cell_runs(self.folder.name, {item.cell.number: item.run or None for item in planned.cells})
        self.write_table()

    def make(self, planned: SweepPlan, todo: Sequence[Planned]) -> None:
        """Make the clips. Raises Stop where the sweep ended early."""
        cells = {item.cell.number: item.cell for item in todo}
        for task, record in run_cells(self.maker, [self._task(item, planned) for item in todo], self.watch):
            if record.status == "failed" and is_full(record.reason):
                raise Stop(record.reason)  # the cell counts as not run: it is made when the sweep goes on
            self.store.set_cell_runs(self.folder.name, {task.number: record.id}, {task.number: record.key})
            if time.monotonic() >= self.next_write:
                self.write_table()
            if self.on_cell:
                self.on_cell(cells[task.number], record)

    def _task(self, item: Planned, planned: SweepPlan) -> Task:
        params = item.cell.params
        return Task(item.cell.number, params, item.cell.label, sweep=self.sweep.name, key=item.key, bytes=(item.file_bytes or 0.0) + SPARE_BYTES,
                    fits=planned.looks.fitting(params) if planned.looks else anywhere)  # fmt: skip

    def fill_in_metrics(self, planned: SweepPlan) -> None:
        """Measure the clips that were made before and not measured: their run was stopped, or the CPU was busy."""
        own = {item.run for item in planned.cells}
        for record in missing(self.store):
            if record.id in own:
                self.watch.stop.check()
                fill_in(record, self.store, self.watch)

    def write_table(self) -> None:
        """Write table.csv and table.parquet; a reader finds a whole file at any time."""
        began = time.monotonic()
        try:
            table = self.store.runs(sweep=self.folder.name)
        except StoreError as error:
            log.warning("no table was written: %s", error)  # this may be the end of a run that failed for the same reason
            return
        writers: dict[str, Any] = {"csv": safe_csv(table).to_csv, "parquet": table.to_parquet}
        for format, write in writers.items():
            try:
                with partial_file(self.folder, "table", format) as part, writing(self.folder):
                    with part.open("wb") as file:  # pyarrow takes no name that is not UTF-8
                        write(file, index=False)
                    portable.replace(part, self.folder / f"table.{format}")
            except WriteError as error:
                log.warning("table.%s was not written: %s", format, error)  # the record has it all
        took = time.monotonic() - began
        self.next_write = time.monotonic() + max(TABLE_SECONDS, TABLE_SHARE * took)
