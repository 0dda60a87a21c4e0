"""run_sweep: the cells of a sweep, one after another, through run_clip. What was finished is used, what fails is passed over."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from i2v_lab.clip.progress import Progress
from i2v_lab.clip.record import RunRecord
from i2v_lab.devices.turns import turn
from i2v_lab.errors import Stop, StoreError, SweepError
from i2v_lab.metrics import side
from i2v_lab.run import run_clip
from i2v_lab.settings import Settings, load_settings
from i2v_lab.store import Store
from i2v_lab.store.sweeps import Member
from i2v_lab.sweep.definition import Cell, Sweep
from i2v_lab.sweep.planning import Planned, SweepPlan, params_json, plan, work
from i2v_lab.sweep.progress import Standing, Watch

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

FOLDER = "sweeps"
TABLE_SECONDS = 1.0  # at least between two writes of the table
TABLE_SHARE = 20  # and this many times what the last write took: a table of thousands of rows must not cost more than the cells
MEASURE_SECONDS = 120.0  # at most, for clips that are not measured when the last one is made; later they are filled in
RETRY = {"failed": ("failed", "out_of_memory", "stopped"), "out_of_memory": ("out_of_memory",), "stopped": ("stopped",)}


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
    """The states of cells that are run again: for failed all that ended without a clip.

    Raises:
        SweepError: another word.
    """
    words = [retry] if isinstance(retry, str) else list(retry)
    for word in words:
        if word and word not in RETRY:
            raise SweepError(f"retry: expected {', '.join(RETRY)}, got {word!r}")
    return tuple(dict.fromkeys(state for word in words if word for state in RETRY[word]))


def run_sweep(
    sweep: Sweep,
    store: Store | None = None,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
    retry: str | Sequence[str] = (),
    on_cell: Callable[[Cell, RunRecord], None] | None = None,
    folder: Path | None = None,
) -> SweepResult:
    """Make the clips of a sweep that are not there yet, in the order of its cells.

    A clip that was made before, by whatever sweep, is used. A cell that failed before is left alone unless `retry` says
    otherwise; one whose process was killed counts as not run. Started again with the same definition, a sweep goes on in
    its newest folder.

    Args:
        store: where clips and records go; None: the output folder of the settings.
        settings: as for run_clip.
        progress: hears every stage and step; a SweepProgress hears of the cells too. Stop raised by it ends the sweep.
        retry: failed, out_of_memory or stopped: cells that ended so are run, and no others; failed means all three.
        on_cell: called with each cell that was run, and its record.
        folder: from `open_folder`; None: found or made here.

    Raises:
        SweepError: the sweep is wrong; nothing was run. StoreError: a record could not be written.
    """
    settings = settings or load_settings()
    store = store or Store(settings.output.directory)
    states = retry_states(retry)
    sweep = sweep.with_default_model(settings.model)
    folder = folder or open_folder(sweep, store, settings)
    planned = plan(sweep, store, settings, sweep_id=folder.name)
    watch = _watch(planned, folder, progress or Progress(), states)
    run = _SweepRun(sweep.name, folder, store, settings, watch, on_cell)
    stopped = ""
    try:
        if todo := planned.to_run(states):
            # Where nothing is left to run there is no turn to wait for.
            with turn(planned.devices, f"the sweep {sweep.name}", watch.wait) as waited:
                if waited:  # the other sweep may have made some of it
                    planned = plan(sweep, store, settings, sweep_id=folder.name)
                    todo = planned.to_run(states)
                    watch.begin(*_outlook(planned, folder, states))
                run.use(planned)
                stopped = run.cells(todo)
            if not stopped:
                _wait_for_measures(store, watch)
        else:
            run.use(planned)
    except Stop as stop:
        stopped = str(stop)
    finally:
        run.write_table()
        watch.over(stopped or "over")
    counts = store.cell_counts(folder.name)
    return SweepResult(folder.name, folder, tuple(sweep.axis_names), counts, watch.standing.ran, stopped, store)


def _wait_for_measures(store: Store, watch: Watch) -> None:
    """The last clips are still being measured on the side: the table of the sweep has them too."""
    deadline = time.monotonic() + MEASURE_SECONDS
    while (left := side.wait(store, 0.2)) and time.monotonic() < deadline:
        watch.wait(f"measuring the last {left} clips")


def open_folder(sweep: Sweep, store: Store, settings: Settings | None = None) -> Path:
    """The folder of a sweep: its newest one where that has this very definition, otherwise a new one, with its cells planned.

    The folder is results/sweeps/<name>-<time>; it holds sweep.yaml.
    """
    settings = settings or load_settings()
    sweep = sweep.with_default_model(settings.model)
    definition = sweep.definition()
    newest = store.find_sweeps(sweep.name)[:1]
    if newest and newest[0].definition == definition and (store.directory / FOLDER / newest[0].id).is_dir():
        return store.directory / FOLDER / newest[0].id
    planned = plan(sweep, store, settings)
    folder = _new_folder(store.directory / FOLDER, sweep.name)
    (folder / "sweep.yaml").write_text(sweep.to_yaml(), encoding="utf-8")
    members = (Member(item.cell.number, item.key, params_json(item.cell.params)) for item in planned.cells)
    store.begin_sweep(folder.name, sweep.name, definition, members)
    return folder


def _new_folder(parent: Path, name: str) -> Path:
    moment = f"{datetime.now():%Y%m%d_%H%M%S}"
    for number in range(1000):
        folder = parent / (f"{name}-{moment}_{number}" if number else f"{name}-{moment}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise StoreError(f"{folder}: cannot be made ({error.strerror}); give another output folder") from None
        return folder
    raise StoreError(f"{parent}: too many sweeps called {name} in one second")


def _outlook(planned: SweepPlan, folder: Path, states: Sequence[str]) -> tuple[Standing, list[float], float | None]:
    todo = planned.to_run(states)
    counts = planned.counts
    failed = sum(counts.get(state, 0) for state in RETRY["failed"])
    failed -= len(todo) if states else 0  # they are run again
    standing = Standing(folder.name, len(planned.cells), len(todo), done=counts.get("done", 0), failed=failed)
    return standing, [work(item.cell.params) for item in todo], planned.expected(states)[0]


def _watch(planned: SweepPlan, folder: Path, listener: Progress, states: Sequence[str]) -> Watch:
    standing, amounts, expected = _outlook(planned, folder, states)
    return Watch(standing, folder, listener, amounts, expected)


class _SweepRun:
    """A run of a sweep while it goes on. Nothing in it grows with the cells that are done."""

    def __init__(
        self,
        name: str,
        folder: Path,
        store: Store,
        settings: Settings,
        watch: Watch,
        on_cell: Callable[[Cell, RunRecord], None] | None,
    ) -> None:
        self.name, self.folder, self.store, self.settings = name, folder, store, settings
        self.watch, self.on_cell = watch, on_cell
        self._next_write = 0.0

    def use(self, planned: SweepPlan) -> None:
        """Note the runs of before, whoever made them; the table is there from the beginning.

        A cell whose run no longer is that of its key, because the picture changed or the clip is gone, has none.
        """
        self.store.set_cell_runs(self.folder.name, {item.cell.number: item.run or None for item in planned.cells})
        self.write_table()

    def cells(self, todo: Sequence[Planned]) -> str:
        """Run them. Returns why the sweep ended early, "" where it did not."""
        for item in todo:
            cell = item.cell
            self.watch.cell(cell.number, cell.label)
            record = run_clip(cell.params, None, self.store, progress=self.watch, settings=self.settings, sweep=self.name)
            self.store.set_cell_runs(self.folder.name, {cell.number: record.id}, {cell.number: record.key})
            self.watch.ended(record.status)
            if time.monotonic() >= self._next_write:
                self.write_table()
            if self.on_cell:
                self.on_cell(cell, record)
            if record.status == "stopped":
                return record.reason
        return ""

    def write_table(self) -> None:
        """Write table.csv and table.parquet; whoever reads them finds a whole file."""
        began = time.monotonic()
        table = self.store.runs(sweep=self.folder.name)
        for name in ("table.csv", "table.parquet"):
            part = self.folder / f".{name}.{os.getpid()}"
            try:
                if name.endswith(".csv"):
                    table.to_csv(part, index=False)
                else:
                    table.to_parquet(part, index=False)
                part.replace(self.folder / name)
            except OSError as error:
                log.warning("%s was not written: %s", self.folder / name, error)  # the record has it all
                with suppress(OSError):
                    part.unlink(missing_ok=True)
        took = time.monotonic() - began
        self._next_write = time.monotonic() + max(TABLE_SECONDS, TABLE_SHARE * took)
