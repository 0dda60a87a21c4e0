"""SweepPlan: which cells of a sweep are done, to do, or cannot run and why; the time and the disk space they will take."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast

from i2v_lab import models
from i2v_lab.clip.levers import steps_of
from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.publish import free_bytes
from i2v_lab.cluster.place import Place
from i2v_lab.cost.timing import Span, span
from i2v_lab.errors import I2VLabError
from i2v_lab.models.stock.families import FAMILIES as STOCK
from i2v_lab.settings import Settings, load_settings
from i2v_lab.store import Store
from i2v_lab.sweep.definition import Cell, Sweep
from i2v_lab.sweep.look import Look, Looks

if TYPE_CHECKING:
    import pandas as pd

State = Literal["done", "to do", "cannot run", "failed", "out_of_memory", "stopped"]
LOADS = ("model", "dtype", "quantization")  # a change of these loads a model
TWO_PASSES = ("heun", "kdpm2", "kdpm2-a")  # schedulers that run the network twice per step
REUSED = 0.3  # of the work of a pass, about, that a step takes which reuses what a cache kept


@dataclass(frozen=True, slots=True)
class Planned:
    """A cell of the plan.

    Attributes:
        cell: which one.
        key: of its clip; "" where it is known only once the model is loaded, or where the cell cannot run.
        state: done (in this sweep or another); to do; cannot run; or how it ended the last time.
        reason: why it cannot run, or did not end with a clip.
        run: the id of the run that made the clip, or failed to; "" where there is none.
        time: expected wall seconds without loading the model, and the range in which nine of ten are; None where no run was measured
            here. `seconds` is the first.
        file_bytes: expected size of the clip; None likewise.
        peak_gib: the most memory that it will take, GiB; None where that cannot be predicted.
        tier: the tier of the memory ladder on which it fits; None where it fits on none, or that cannot be predicted.
        device_name: of a cluster, the smallest device that can hold it; "" without one.
    """

    cell: Cell
    key: str
    state: State
    reason: str = ""
    run: str = ""
    time: Span | None = None
    file_bytes: float | None = None
    peak_gib: float | None = None
    tier: int | None = None
    device_name: str = ""

    @property
    def seconds(self) -> float | None:
        return self.time and self.time.expected


@dataclass(frozen=True, repr=False)
class SweepPlan:
    """What a sweep will do. A notebook shows it as a table.

    Attributes:
        sweep: what is planned.
        cells: a Planned for each cell, in order.
        devices: where the cells to do will run ("cpu", "cuda:0").
        free_bytes: on the disk of the output folder.
        looks: by which it was made.
    """

    sweep: Sweep
    cells: tuple[Planned, ...]
    devices: tuple[str, ...] = ()
    free_bytes: float = math.inf
    looks: Looks | None = field(default=None, compare=False)

    def to_run(self, retry: Sequence[str] = ()) -> list[Planned]:
        """The cells that a run of the sweep tries, in their turn: those to do, and those that cannot run, to record the reason.

        Args:
            retry: statuses (failed, out_of_memory, stopped); where given, only cells that ended so.
        """
        wanted = tuple(retry) or ("to do", "cannot run")
        turn = turns(self.sweep)
        return sorted((planned for planned in self.cells if planned.state in wanted), key=lambda one: turn[one.cell.number])

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the devices of a cluster, each once; none without one."""
        return self.looks.kinds if self.looks else ()

    @property
    def counts(self) -> dict[str, int]:
        """{state: how many cells}."""
        return dict(Counter(planned.state for planned in self.cells))

    def expected(self, retry: Sequence[str] = ()) -> tuple[float | None, float | None]:
        """(seconds, bytes on disk) of the cells that will run; None where no run was measured here yet."""
        chosen = [planned for planned in self.to_run(retry) if planned.state != "cannot run"]
        if any(planned.seconds is None for planned in chosen):
            return None, None
        return sum(planned.seconds or 0.0 for planned in chosen), sum(planned.file_bytes or 0.0 for planned in chosen)

    def time(self, retry: Sequence[str] = ()) -> str:
        """The range of seconds of the cells that will run, in words; as if all were faster than expected, or all slower."""
        known = [planned.time for planned in self.to_run(retry) if planned.time]
        return span(sum(time.low for time in known), sum(time.high for time in known))

    @property
    def table(self) -> pd.DataFrame:
        """One row a cell: number, the swept params, state, reason, seconds, memory (and tier, if it takes one) and MB expected."""
        import pandas as pd

        names = self.sweep.axis_names
        rows = [
            {"cell": planned.cell.number, **{name: planned.cell.labels[name] for name in names}, "state": planned.state,
             "reason": planned.reason, "expected s": planned.seconds, "GiB": planned.peak_gib, "tier": planned.tier or None,
             "expected MB": None if planned.file_bytes is None else planned.file_bytes / 1e6,
             **({"device": planned.device_name} if len(self.kinds) > 1 else {})}
            for planned in self.cells
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def summary(self, retry: Sequence[str] = ()) -> str:
        """The plan in one line: `24 cells: 20 to do, 4 done; 2 to 4 min and 12 MB for the 20 to run`."""
        states = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        number = f"{len(self.cells)} cell{'s' if len(self.cells) != 1 else ''}"
        if len(self.kinds) > 1:  # seconds, and on some also pixels, are those of the device
            states += f"; on {len(self.kinds)} kinds of device ({', '.join(self.kinds)}), so do not compare seconds between cells"
        if not self.to_run(retry):
            return f"{number}: {states}; nothing to run"
        _, size = self.expected(retry)
        if size is None:
            return f"{number}: {states}; no run measured here yet, so the time is not known"
        room = (
            ""
            if size < self.free_bytes
            else f"; the disk has only {self.free_bytes / 1e6:.3g} MB free: it will stop when that is full"
        )
        return f"{number}: {states}; {self.time(retry)} and {size / 1e6:.3g} MB for the {len(self.to_run(retry))} to run{room}"

    def settings(self) -> tuple[list[tuple[str, int]], int]:
        """([(axis, how many values)] of those with several, how many seeds); axes that change together count once.

        Pictures are settings where nothing else was swept; otherwise each picture with each seed counts as a seed.
        """
        names = [name for name in self.sweep.axis_names if name != "seed"]
        names = [name for name in names if name != "image"] or names
        labels = {name: [item.cell.labels[name] for item in self.cells] for name in names}
        found: list[str] = []
        for name in names:
            if all(len(set(zip(labels[one], labels[name], strict=True))) > len(set(labels[one])) for one in found):
                found.append(name)
        seeds = {("" if "image" in found else item.cell.params.image, item.cell.params.seed) for item in self.cells}
        return [(name, len(set(labels[name]))) for name in found if len(set(labels[name])) > 1], len(seeds)

    def __repr__(self) -> str:
        return f"SweepPlan({self.sweep.name}: {self.summary()})"

    def _repr_html_(self) -> str:
        import html

        table = self.table.replace("", None).dropna(axis="columns", how="all")  # nothing is expected yet: no column
        shown = table.to_html(index=False, max_rows=60, na_rep="", float_format=lambda value: f"{value:.3g}", escape=True)
        return f"<p>{html.escape(self.summary())}</p>{shown}"


def plan_sweep(
    sweep: Sweep, store: Store | None = None, settings: Settings | None = None, *, sweep_id: str = "", places: Sequence[Place] = ()
) -> SweepPlan:
    """The plan of a sweep. No cell is run, and nothing is written.

    A cell that fits on no tier into the memory that is free now cannot run; the plan says why.

    Args:
        store: where finished clips are searched; None: the output folder of the settings.
        settings: default model, device; None reads config.yaml and the environment.
        sweep_id: the earlier run of this sweep whose failures count; "": the newest of this name.
        places: of the workers of a cluster, for which it is planned. Where the settings name a cluster and none are given, a cell
            that has its clip in this sweep is done: its key is that of a device that is not here.
    """
    settings = settings or load_settings()
    store = store or Store(settings.output.directory)
    sweep = sweep.with_defaults(settings.model)
    looks = Looks(store, settings, places)
    cells, keys, faults = _resolved(sweep.cells(), looks)
    ending = f".{settings.output.format}"
    made = store.find_all_done(keys.values(), ending)
    done = {(key, run.params.fps): run.id for key, found in made.items() for run in found if run.params}
    known = sweep_id or next((found.id for found in store.find_sweeps(sweep.name)), "")
    before, planned = store.cell_states(known) if known else {}, []
    for cell in cells:
        key = keys.get(cell.number, "")
        run, status, reason = before.get(params_json(cell.params), ("", "", ""))
        look = looks.best(cell.params)
        if status == "done" and settings.cluster.address and not places and _is_there(store, run, look):
            state, reason = "done", ""
        elif (key, cell.params.fps) in done:
            state, reason, run = "done", "", done[key, cell.params.fps]
        elif status in ("failed", "out_of_memory", "stopped"):
            state = status
        elif cell.number in faults:
            state, reason, run = "cannot run", faults[cell.number], ""
        else:
            state, reason, run = "to do", "", ""
        found = look.forecast(cell.params)
        if found and state == "to do" and not found.fits:
            state, reason = "cannot run", found.sentence()
        elif found and key and state == "to do" and look.family(cell.params).pixel_changes(found.tier or 0, cell.params):
            key = look.key(cell.params, found.tier or 0)  # the key of the clip on that tier, which may be made already
            if again := store.find_done(key, ending, cell.params.fps):
                state, run = "done", again.id
        item = Planned(
            cell, key, cast(State, state), reason, run, file_bytes=look.file_bytes(cell.params), device_name=look.device_name
        )
        time = found.time if found else None
        if key and state == "to do":  # at another fps, the frames are used again
            time, made[key] = Span(0, 0, 0) if key in made else time, made.get(key, [])
        planned.append(replace(item, time=time, peak_gib=found.peak_gib, tier=found.tier) if found else item)
    devices = dict.fromkeys(each for item in planned if item.state != "done" for each in looks.devices(item.cell.params))
    return SweepPlan(sweep, tuple(planned), tuple(devices), free_bytes(store.directory), looks)


def _resolved(asked: list[Cell], looks: Looks) -> tuple[list[Cell], dict[int, str], dict[int, str]]:
    """The cells with what their families fill in; the key of each, by its number, or what is wrong with it."""
    cells, keys, faults = list(asked), {}, {}
    for place, cell in enumerate(asked):
        try:
            cells[place] = looks.at(None).resolved(cell)
            keys[cell.number] = looks.best(cells[place].params).key(cells[place].params)
        except I2VLabError as error:
            faults[cell.number] = str(error)
    return cells, keys, faults


def _is_there(store: Store, run: str, look: Look) -> bool:
    """Whether a run still has its clip, of the picture that is there now."""
    record = store.get(run)
    if record is None or not record.params or not record.clip or store.is_gone(record):
        return False
    with suppress(I2VLabError):
        return look.picture(record.params.image) == record.image_sha256
    return True  # the picture is gone; the clip is not


def turns(sweep: Sweep) -> dict[int, Any]:
    """{number of a cell: what to sort by}: the order in which the cells of a sweep run.

    The speed of a machine drifts, so every value is spread over the whole time: what needs another load (LOADS) is outermost, then
    come the seeds, and within a seed the cells are shuffled. Several loads are visited twice, in mirrored order: with the first half
    of the seeds A, B, with the second half B, A. A model of a stock family is loaded once and makes all its clips: it has tens of GB
    to read, which takes longer than a clip; the report then says that its time cannot be told from a drift of the machine. The models
    that are visited twice are run around it. A sweep with an `order` runs as written.
    """
    cells = sweep.cells()
    if sweep.order:
        return {cell.number: cell.number for cell in cells}
    luck = random.Random(sweep.shuffle)  # noqa: S311  an order, no secret
    loads = list(dict.fromkeys(_load(cell.params) for cell in cells))
    seeds = list(dict.fromkeys(cell.params.seed for cell in cells))
    heavy = {model: _is_stock(model) for model in {cell.params.model for cell in cells}}
    found = {}
    for cell in cells:
        load, seed = loads.index(_load(cell.params)), seeds.index(cell.params.seed)
        late = seed >= (len(seeds) + 1) // 2 and not heavy[cell.params.model]
        found[cell.number] = (late, -load if late else load, seed, luck.random())
    return found


def _load(params: ClipParams) -> tuple[Any, ...]:
    return tuple(getattr(params, name) for name in LOADS)


def _is_stock(model: str) -> bool:
    """Whether a model runs through a pipeline of diffusers; one that cannot be found is not loaded at all."""
    with suppress(I2VLabError):
        return models.find(model)[0].name in STOCK
    return False


def params_json(params: ClipParams) -> str:
    """The params as JSON, as the store keeps them for a cell."""
    return params.model_dump_json(exclude_none=True)


def work(params: ClipParams) -> float:
    """The amount of computation, without a unit: passes x frames x pixels, and the writing of the frames."""
    steps = steps_of(params, params.num_inference_steps)
    passes = sum((2 if step.guided else 1) * (REUSED if step.reused else 1) for step in steps)
    return float(params.height * params.width * params.num_frames * (passes * (2 if params.scheduler in TWO_PASSES else 1) + 2))
