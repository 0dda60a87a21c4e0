"""Seconds of a clip before it runs, from earlier runs on this device.

A clip's stages cost FLOPs. A device does so many of them a second, and another number for a VAE than for a network. These
rates, and a constant, are fitted to earlier runs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from i2v_lab.clip.params import ClipParams
from i2v_lab.errors import I2VLabError
from i2v_lab.models.base import StageCost
from i2v_lab.store import Store

SHAPES_MAX = 12  # different shapes of earlier runs that rates are fitted to, the newest ones
PULL = 0.01  # how much the fit is drawn to one rate for all stages, beside a run's relative error

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

    What the runs do not tell apart is drawn towards one rate for all stages and no constant.

    Args:
        flops: (n, stages). seconds: (n,), above 0.

    Returns:
        (1 + stages,): the constant, then seconds a FLOP of each stage.
    """
    from scipy.optimize import nnls

    unit = np.array([np.median(seconds), *[np.median(seconds / flops.sum(1))] * flops.shape[1]])
    columns = np.column_stack([np.ones(len(flops)), flops]) * unit / seconds[:, None]  # without units, about 1
    pull = PULL * np.eye(len(unit))
    found = nnls(np.concatenate([columns, pull]), np.concatenate([np.ones(len(flops)), pull[1:].sum(0)]))[0]
    return np.asarray(found * unit)
