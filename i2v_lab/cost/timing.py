"""Seconds of a clip before it runs, from earlier runs on this device.

A clip's stages cost FLOPs. A device does so many of them a second, and another number for a VAE than for a network. These
rates are fitted to earlier runs, with a constant only if that explains much more.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import I2VLabError
from i2v_lab.models.base import StageCost
from i2v_lab.store import Store

SHAPES_MAX = 12  # different shapes of earlier runs that rates are fitted to, the newest ones
CONSTANT_GAIN = 0.7  # the fit has a constant if that brings the error below this share of the error without

Stages = tuple[StageCost, ...]
Row = tuple[str, int, int, float, str]  # resolution, frames, steps, guidance, scheduler


class Rates:
    """Rates of one model on one device, from earlier runs.

    Attributes:
        runs: how many runs it knows.
    """

    def __init__(self, store: Store, model_name: str, device_name: str, cost: Callable[[Row], Stages], **like: Any) -> None:
        """Args:
        cost: what a clip of a shape costs.
        like: which runs count; see `Store.timings`.
        """
        self._same: dict[Any, list[float]] = {}
        shapes: dict[Any, tuple[list[float], list[float]]] = {}
        for *row, seconds, _ in store.timings(model_name, device_name, 500, **like):
            shape: Any = tuple(row)
            self._same.setdefault(_alike(shape), []).append(seconds)
            if shape not in shapes and len(shapes) < SHAPES_MAX:
                try:
                    shapes[shape] = ([float(stage.flops) for stage in cost(shape)], [])
                except I2VLabError:  # what this version does not make any more
                    continue
            if shape in shapes:
                shapes[shape][1].append(seconds)
        self.runs = sum(len(taken) for _, taken in shapes.values())
        kept = [(flops, statistics.median(taken)) for flops, taken in shapes.values()]
        self._fit = fit(np.array([flops for flops, _ in kept]), np.array([taken for _, taken in kept])) if kept else None

    def seconds(self, row: Row, stages: Stages) -> float | None:
        """Of a clip without loading: the median of runs of this very shape, or by the rates; None where nothing was run."""
        if same := self._same.get(_alike(row)):
            return statistics.median(same)
        if self._fit is None:
            return None
        return float(self._fit @ np.array([1.0, *(stage.flops for stage in stages)]))


def _alike(row: Sequence[Any]) -> tuple[Any, ...]:
    """What of a shape decides how long it takes: of guidance, only whether there is any."""
    resolution, frames, steps, guidance, scheduler = row
    return resolution, frames, steps, guidance > 1, scheduler


def row_of(params: ClipParams) -> Row:
    """The shape of a clip as the store has it."""
    return params.resolution, params.num_frames, params.num_inference_steps, params.guidance_scale, params.scheduler


def duration(seconds: float) -> str:
    """Seconds in words: 12 s, 3 min, 2 h 5 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def fit(flops: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Seconds and seconds a FLOP, none negative, that make the mean squared relative error smallest.

    With n runs at most (n + 1) / 2 rates are fitted; a stage without its own rate has that of all together.

    Args:
        flops: (n, stages). seconds: (n,), above 0.

    Returns:
        (1 + stages,): the constant, then seconds a FLOP of each stage.
    """
    count, stages = flops.shape
    one = np.zeros(1 + stages)
    one[1:] = _solve(flops.sum(1, keepdims=True), seconds)[0]
    best, error = one, _error(flops, seconds, one)
    limit = (count + 1) // 2
    for with_constant in (False, True):
        for size in range(1, min(stages, limit - with_constant) + 1):
            for chosen in combinations(range(stages), size):
                rest = [stage for stage in range(stages) if stage not in chosen]
                # Stages without their own rate are added to the first that has one: left out, they would take no time.
                columns = [flops[:, stage] + (flops[:, rest].sum(1) if stage == chosen[0] else 0) for stage in chosen]
                solved = _solve(np.stack([*([np.ones(count)] if with_constant else []), *columns], 1), seconds)
                trial = np.zeros(1 + stages)
                trial[0] = solved[0] if with_constant else 0
                own = solved[int(with_constant) :]
                trial[[1 + stage for stage in chosen]] = own
                trial[[1 + stage for stage in rest]] = own[0]
                found = _error(flops, seconds, trial)
                if (trial >= 0).all() and found < error * CONSTANT_GAIN:
                    best, error = trial, found
    return best


def _solve(columns: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    scale = columns.max(0)  # FLOPs and a constant are 12 powers of ten apart
    scale[scale == 0] = 1
    found: npt.NDArray[np.float64] = np.linalg.lstsq(columns / scale / seconds[:, None], np.ones(len(seconds)), rcond=None)[0]
    return found / scale


def _error(flops: npt.NDArray[np.float64], seconds: npt.NDArray[np.float64], trial: npt.NDArray[np.float64]) -> float:
    return float((((trial[0] + flops @ trial[1:]) / seconds - 1) ** 2).mean())
