"""Seconds of a clip before it runs, from earlier runs on this device.

Each stage takes a constant, or so much a step, and time for what it computes (FLOPs) or moves (bytes of frames). What a device needs for
these is fitted to the stages of earlier runs. How far off the fit is for each of those runs, when it is left out, says how wide the
range of a prediction is.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from i2v_lab.clip.levers import CHOSEN, LEVERS, NEUTRAL
from i2v_lab.clip.params import ClipParams, resolution_size
from i2v_lab.errors import I2VLabError
from i2v_lab.models.base import StageCost
from i2v_lab.store import Store

SHAPES_MAX = 12  # different shapes of earlier runs that the fit is made from, the newest ones
PULL = 0.05  # how much the fit is drawn to no constant, beside a run's relative error
SPREAD_MIN = 0.08  # nobody's machine is steadier (standard deviation of the logarithm of the seconds)
AWAY = 0.1  # what is added to that for each power of e in FLOPs beyond the runs that are known
OTHER_CODE = (0.25, 2.0)  # of the time by torch, from and to: clips by another code, none of which was made here yet
ONE_RUN = 0.5  # the spread where one shape was run: its stages are known, how they grow is not

Stages = tuple[StageCost, ...]
Row = tuple[Any, ...]  # resolution, frames, steps, guidance, scheduler, and each of LEVERS or ""
Columns = dict[str, list[float]]


class Span(NamedTuple):
    """Seconds: expected, and the range in which nine of ten are."""

    expected: float
    low: float
    high: float

    def __str__(self) -> str:
        return span(self.low, self.high)


@dataclass(frozen=True)
class _Run:
    """The median run of a shape: what fits are made of its stages, what they took, and the clip's FLOPs."""

    columns: Columns
    seconds: dict[str, float]
    flops: float


class Rates:
    """Rates of one model on one device, from earlier runs.

    Attributes:
        runs: how many runs it knows.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        model_name: str,
        device_name: str,
        cost: Callable[[Row], Stages],
        code: Sequence[Any],
        **like: Any,
    ) -> None:
        """Args:
        stores: whose runs count. cost: what a clip of a shape costs. code: of the runs that count; see `code_of`.
        like: which runs count; see `Store.timings`.
        """
        self._same: dict[Any, list[float]] = {}
        taken: dict[Any, list[dict[str, float]]] = {}
        found = (store.timings(model_name, device_name, 500, **like) for store in stores)
        for *row, seconds, _, encode, denoise, decode, write in chain.from_iterable(found):
            shape: Any = tuple(row)
            if code_of(shape) != code:
                continue
            self._same.setdefault(alike(shape), []).append(seconds)
            stages = {"encode": encode, "denoise": denoise, "decode": decode, "write": write}
            if shape in taken or len(taken) < SHAPES_MAX:
                # A record without its stages (of another program, say) is one stage.
                taken.setdefault(shape, []).append(stages if all(stages.values()) else {"all": seconds})
        self._known = [run for shape, runs in taken.items() if (run := _median_run(shape, runs, cost))]
        self._spread = self._left_out()
        self.runs = sum(map(len, taken.values()))

    def seconds(self, row: Row, stages: Stages) -> Span | None:
        """Of a clip without loading: by runs of this very shape, or by the fit; None where nothing was run."""
        if same := self._same.get(alike(row)):
            margin = 1.25 if len(same) == 1 else 1.1
            return Span(statistics.median(same), min(same) / margin, max(same) * margin)
        if not self._known:
            return None
        expected = _predict(self._known, _columns(row, stages))
        flops, seen = _flops(stages), [run.flops for run in self._known]
        away = max(0.0, math.log(flops / max(seen)), math.log(min(seen) / flops))
        factor = math.exp(self._spread + 1.645 * AWAY * away)
        return Span(expected, expected / factor, expected * factor)

    def _left_out(self) -> float:
        """How far, as a logarithm, nine of ten shapes are from the fit that does not know them."""
        runs = self._known
        if len(runs) < 2:
            return 1.645 * ONE_RUN
        misses = [
            math.log(_predict([*runs[:k], *runs[k + 1 :]], run.columns) / sum(run.seconds.values())) for k, run in enumerate(runs)
        ]
        spread = max(SPREAD_MIN, math.sqrt(statistics.fmean(miss**2 for miss in misses)))
        return 1.645 * (1 + 1.5 / (len(runs) - 1)) * spread  # about Student's t for so few


def _median_run(shape: Row, runs: list[dict[str, float]], cost: Callable[[Row], Stages]) -> _Run | None:
    try:
        stages = cost(shape)
    except I2VLabError:  # what this version does not make any more
        return None
    alike = [run for run in runs if run.keys() == runs[0].keys()]
    seconds = {name: max(1e-4, statistics.median(run[name] for run in alike)) for name in runs[0]}
    return _Run(_columns(shape, stages), seconds, _flops(stages))


def _flops(stages: Stages) -> float:
    return float(max(1, sum(stage.flops for stage in stages)))


def _columns(row: Row, stages: Stages) -> Columns:
    """What each stage's seconds are a sum of, with rates that are fitted: something that does not grow with the clip, and its work."""
    resolution, frames, steps, *_ = row
    height, width = resolution_size(resolution)
    work = {stage.stage: float(max(1, stage.flops)) for stage in stages} | {
        "write": 3.0 * height * width * frames,
        "all": _flops(stages),
    }
    return {name: [float(steps) if name == "denoise" else 1.0, amount] for name, amount in work.items()}


def _predict(runs: Sequence[_Run], columns: Columns) -> float:
    """Seconds of a clip by the fit to runs; those count that have the stages of the newest one."""
    names = runs[0].seconds.keys()
    known = [run for run in runs if run.seconds.keys() == names]
    rates = {
        name: fit(np.array([run.columns[name] for run in known]), np.array([run.seconds[name] for run in known])) for name in names
    }
    return max(1e-3, sum(float(np.array(columns[name]) @ rates[name]) for name in names))


def alike(row: Sequence[Any]) -> tuple[Any, ...]:
    """What of a shape decides how long it takes: of guidance, only whether there is any; a lever that changes nothing is none."""
    resolution, frames, steps, guidance, scheduler, *levers = row
    asked = ("" if value == neutral else value for value, neutral in zip(levers, NEUTRAL.values(), strict=True))
    return resolution, frames, steps, guidance > 1, scheduler, *asked


def code_of(row: Sequence[Any]) -> tuple[Any, ...]:
    """By what code a clip of this shape is computed: the levers that change the seconds that a FLOP takes."""
    return alike(row)[-len(CHOSEN) :]


def row_of(params: ClipParams) -> Row:
    """The shape of a clip as the store has it."""
    levers = (getattr(params, name) or "" for name in LEVERS)
    return params.resolution, params.num_frames, params.num_inference_steps, params.guidance_scale, params.scheduler, *levers


def duration(seconds: float) -> str:
    """Seconds in words: 12 s, 3 min, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def span(low: float, high: float) -> str:
    """A range of seconds in words: 1.2 to 1.9 s, 50 s to 2 min."""
    first, last = duration(low), duration(high)
    if first == last:
        return last
    number, _, unit = first.partition(" ")
    return f"{number} to {last}" if last.partition(" ")[2] == unit else f"{first} to {last}"


def fit(columns: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rates, none negative, with which the sum of columns times rates has the smallest mean squared relative error.

    What the runs do not tell apart is drawn to the last column.

    Args:
        columns: (n, k), above 0. seconds: (n,), above 0.

    Returns:
        (k,): seconds for one of each column.
    """
    from scipy.optimize import nnls

    unit = np.median(seconds[:, None] / columns, axis=0)
    relative = columns * unit / seconds[:, None]  # without units, about 1
    pull = PULL * np.eye(len(unit))
    found = nnls(np.concatenate([relative, pull]), np.concatenate([np.ones(len(seconds)), pull[-1]]))[0]
    return np.asarray(found * unit)
