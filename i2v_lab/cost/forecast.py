"""Forecasts: what a clip takes, whether it fits and on which tier, and what would fit if it does not."""

from __future__ import annotations

import math
import sys
from bisect import bisect_left
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from statistics import median
from types import SimpleNamespace
from typing import Any

import psutil

from i2v_lab import models
from i2v_lab.clip.levers import LEVERS, NEUTRAL, at_most
from i2v_lab.clip.params import SIDE_MIN, ClipParams
from i2v_lab.clip.record import RunRecord
from i2v_lab.cost.budget import Budget, default_device
from i2v_lab.cost.remarks import nearest_words, remarks
from i2v_lab.cost.timing import Rates, Row, Span, row_of
from i2v_lab.devices.hardware import GIB, machine
from i2v_lab.errors import I2VLabError, Message, ParamsError
from i2v_lab.models.base import StageCost, VideoModel
from i2v_lab.models.memory.cost_cache import known_only
from i2v_lab.store import Store

# What a process of ours takes on a CPU before the first clip: Python, torch, diffusers. Measured on Linux x86-64.
PROCESS_BYTES = 298 * 2**20
COMPILER_BYTES = 65 * 2**20  # torch's compiler, which diffusers imports with its networks
SCIPY_BYTES = 55 * 2**20  # scipy.stats, which the modules of all schedulers but these import
WITHOUT_SCIPY = ("ddim", "ddpm", "euler-a", "lcm")
# What a preset gives to save time; see Forecast.of_standard.
HURRIED = (
    "num_inference_steps",
    "guidance_scale",
    "guidance_scale_2",
    "true_cfg_scale",
    "flow_shift",
    "scheduler",
    "lora",
    *LEVERS,
)
RUNS_CORRECTING = 50  # newest runs whose measured memory corrects a forecast on CUDA
CORRECTION = (0.5, 2.0)  # beyond these a measurement is not believed


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a clip will take.

    Attributes:
        params: the clip.
        model: family. device, dtype: where and in which numbers it would run.
        tier: the first tier of the memory ladder on which it fits; None: on none.
        stages: what each stage takes on that tier; where it fits on none, on the last.
        base: bytes that the process takes besides: on a CPU Python and the libraries, as `peak_ram_gib` of a run has them
            in it too; 0 on CUDA.
        correction: measured over predicted memory of earlier runs on this device, already in `peak_gib`; 1 on a CPU.
        budget: the memory that it may take.
        flops: floating-point operations of the whole clip. least_flops: where what its cache saves depends on data, as few at least.
        of_standard: flops over those of the same clip with the steps and guidance of the family's standard preset, and no lever; None
            where it has no lever and no LoRA.
        time: seconds without loading the model, and the range in which nine of ten are; None where no run of this model on this
            device is known.
        runs: how many runs `time` is drawn from.
        last_tier: the tier that `stages` are of.
        nearest: where it fits on no tier, the nearest smaller resolution alone, and the nearest number of frames alone,
            that fit on the last one. They are advice: nothing is changed.
    """

    params: ClipParams
    model: str
    device: str
    dtype: str
    tier: int | None
    stages: tuple[StageCost, ...]
    base: int
    correction: float
    budget: Budget
    flops: int
    time: Span | None
    runs: int
    last_tier: int
    least_flops: int = 0
    of_standard: float | None = None
    nearest: tuple[ClipParams, ...] = ()

    @property
    def peak_gib(self) -> float:
        """The most memory that it takes at once, GiB: of the device, or of the process on a CPU."""
        return _peak(self.stages, self.base, self.correction) / GIB

    @property
    def seconds(self) -> float | None:
        """Expected seconds; None where they are not known."""
        return self.time and self.time.expected

    @property
    def free_gib(self) -> float:
        """The memory that it may take, GiB."""
        return self.budget.bytes / GIB

    @property
    def fits(self) -> bool:
        """Whether it fits on some tier."""
        return self.tier is not None

    def sentence(self) -> str:
        """The forecast in a user's words, on one line."""
        highest = max(self.stages, key=lambda stage: stage.total)
        made = f"{self.params.resolution}, {self.params.num_frames} frames on {self.device} in {self.dtype}"
        peak = f"{self.peak_gib:.1f} GiB ({highest.stage})"
        free = f"{self.free_gib:.1f} GiB, {self.budget.name}"
        if self.tier is None:
            where = f" even on tier {self.last_tier} ({tier_name(self.last_tier)})" if self.last_tier else ""
            return f"{made} does not fit: it takes {peak}{where}, of {free}; {self.advice()}"
        fits = f"fits on tier {self.tier} ({tier_name(self.tier)})" if self.tier else "fits"
        flops = f"{self.least_flops / 1e12:.3g} to {_flops(self.flops)}" if self.least_flops < self.flops else _flops(self.flops)
        return "; ".join([f"{made} {fits}: {peak}, of {free}; {self.time or f'{flops}, time not known yet here'}", *self.remarks()])

    def remarks(self) -> list[Message]:
        """What is to be said of the levers and the LoRAs of the clip."""
        return remarks(self.params, self.of_standard)

    def advice(self) -> str:
        """What would fit, in words."""
        return nearest_words(self.params, self.nearest)


def _flops(flops: int) -> str:
    return f"{flops / 1e12:.3g} TFLOP"


def _peak(stages: tuple[StageCost, ...], base: int, correction: float) -> float:
    return base + max(stage.total for stage in stages) * correction


def tier_name(number: int) -> str:
    """What a tier of the memory ladder is called."""
    from i2v_lab.models.memory.tiers import TIERS

    return TIERS[number].name


def plan(
    params: ClipParams,
    model: VideoModel | None = None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    budget: Budget | None = None,
    store: Store | None = None,
    tier: int | None = None,
) -> Forecast:
    """Predict a clip's memory, FLOPs and time, and the tier on which it fits. Nothing is loaded, run or changed.

    Args:
        model: loaded: its own configs, device and dtype count, and its weights, which are in memory already, are part of
            the forecast and of the budget (see Budget.free). None: what `params.model` names, by its configs if it is on this
            machine, otherwise by the published ones.
        device: "cpu", "cuda", "cuda:N"; None or "auto": the first CUDA device, or the CPU. It need not be here if a budget is
            given.
        dtype: instead of the one of params.
        budget: None: what is free on the device now, less a margin.
        store: its runs show how fast this device is; None: time is not known.
        tier: this tier alone.

    Raises:
        ModelError: no such model, or it cannot be predicted. UnsupportedParams: it cannot make this clip.
    """
    return Forecaster(device=device, budget=budget, store=store).plan(params, model, dtype=dtype, tier=tier)


def native(params: ClipParams) -> ClipParams:
    """Params resolved without a picture: where its shape would decide the resolution, the native size of the family counts."""
    kind = models.find(params.model)[0]
    shape: Any = SimpleNamespace(height=kind.native_size[0], width=kind.native_size[1])
    return models.resolve(params, lambda: shape, kind)


def fits_on(
    model: str, budget: Budget | None = None, *, device: str | None = None, preset: str = "standard", known: bool = False
) -> int | None:
    """The first tier on which a clip of a preset of a model fits, in the family's native size; None: on none.

    The first time it takes some seconds a model, or half a minute for the largest; after that milliseconds. Nothing is loaded.

    Args:
        model: as in ClipParams. budget, device: as `plan`.
        known: answer only where it was predicted before.

    Raises:
        ModelError: no such model, or it cannot be predicted, or was not (`known`). ParamsError: no such preset.
    """
    params = native(ClipParams(image="sample:coffee", model=model, **models.preset(model, preset)))
    with known_only() if known else nullcontext():
        return Forecaster(device=device, budget=budget).plan(params, advise=False, timed=False).tier


class Forecaster:
    """Forecasts of many clips. What they share (the budget, earlier runs, the cost of a shape) is looked up once."""

    def __init__(
        self, *, device: str | None = None, budget: Budget | None = None, store: Store | None = None, device_name: str = ""
    ) -> None:
        """Args: as `plan`. Free memory is read once a device.

        device_name: of a device that is elsewhere and whose runs are in the store: of a worker of a cluster.
        """
        self.device_name = device_name
        self.device = None if device == "auto" else device
        self.budget, self.store = budget, store
        self.budget_of = cache(lambda device: budget or Budget.free(device))
        self._rates: dict[tuple[str, ...], Rates] = {}
        self._corrections: dict[tuple[str, ...], float] = {}
        self._costs: dict[Any, tuple[StageCost, ...]] = {}

    def plan(
        self, params: ClipParams, model: VideoModel | None = None, *, dtype: str | None = None, tier: int | None = None,
        advise: bool = True, timed: bool = True,
    ) -> Forecast:  # fmt: skip
        """As the function `plan`.

        Args:
            advise: look for what would fit, where it does not: some seconds for a large network.
            timed: predict the time as well.
        """
        case = _Case(self, models.resolve(params, kind=type(model) if model is not None else None), model, dtype)
        params = case.params
        tiers = case.family.tiers(case.device)
        if tier is not None and tier not in tiers:
            raise ParamsError(
                f"tier: expected one of {', '.join(map(str, tiers))} for {case.family.name} on {case.device}, got {tier}"
            )
        tried = (tier,) if tier is not None else tiers
        fits, last, stages = None, tried[0], case.cost(params, tried[0])
        for number in tried:
            last, stages = number, case.cost(params, number)
            if case.fits(stages):
                fits = number
                break
        rates = self._rates_of(case, last) if timed else None
        time = rates.seconds(row_of(params), stages) if rates else None
        least = stages
        if most := at_most(params):  # what it saves at least is nothing
            quick = params.replace(cache=most)
            least = case.cost(quick, last)
            if rates and time and (short := rates.seconds(row_of(quick), least)) is not None:
                time = Span(math.sqrt(short.low * time.high), short.low, time.high)
        return Forecast(
            params=params, model=case.family.name, device=case.device, dtype=case.dtype, tier=fits, stages=stages,
            base=case.base, correction=case.correction, budget=case.budget, flops=sum(stage.flops for stage in stages),
            time=time, runs=rates.runs if rates else 0,
            last_tier=last, least_flops=sum(stage.flops for stage in least), of_standard=case.of_standard(stages, last) if advise else None,
            nearest=case.nearest(last) if fits is None and advise else (),
        )  # fmt: skip

    @property
    def _is_elsewhere(self) -> bool:
        """Whether it is about a card, and not about a device that makes clips."""
        return self.budget is not None and not self.device_name

    def _name_of(self, case: _Case) -> str:
        return self.device_name or str(machine(case.device)["device_name"])

    def _rates_of(self, case: _Case, tier: int) -> Rates | None:
        """Rates of earlier runs of this network, in this dtype, with the same offloading: others need other times for a FLOP."""
        if self.store is None or self._is_elsewhere:  # no run was made on a card that is not here
            return None
        offload = tier if tier >= 3 and case.device.startswith("cuda") else 0
        fingerprint = case.model.fingerprint if case.model is not None else ""
        key = (case.family.name, case.device, case.dtype, case.params.model, fingerprint, str(offload))
        if key not in self._rates:

            def cost(row: Row) -> tuple[StageCost, ...]:
                resolution, frames, steps, guidance, scheduler, *levers = row
                then = case.params.replace(resolution=resolution, num_frames=frames, num_inference_steps=steps, guidance_scale=guidance,
                                           scheduler=scheduler, **dict(zip(LEVERS, levers, strict=True)))  # fmt: skip
                return case.cost(then, case.family.tiers(case.device)[0])

            self._rates[key] = Rates(
                self.store, case.family.name, self._name_of(case), cost,
                dtype=case.dtype, model=case.params.model, fingerprint=fingerprint, offload=offload,
            )  # fmt: skip
        return self._rates[key]

    def correction_of(self, case: _Case) -> float:
        """The median of measured over predicted memory of the newest runs of a model on a CUDA device; 1 without any.

        What was predicted is computed again: the figure in a record was corrected by the runs before it. A run that went up
        the ladder shows the memory of the try that failed, and one of another checkpoint is not of this model's configs.
        """
        if not case.device.startswith("cuda") or self.store is None or self._is_elsewhere:
            return 1.0
        key = (case.family.name, case.device, case.model.fingerprint if case.model is not None else "")
        if key not in self._corrections:
            self._corrections[key] = 1.0  # while it is found
            device_name, ratios = self._name_of(case), []
            for record in self.store.records(status="done", limit=RUNS_CORRECTING):
                measured = record.peak_vram_allocated_gib
                if not measured or not record.params or (record.model_name, record.device_name) != (case.family.name, device_name):
                    continue
                if climbed(record) or (case.model is not None and record.model_fingerprint != case.model.fingerprint):
                    continue
                with suppress(I2VLabError):  # what this version does not make any more
                    stages = case.cost(record.params, record.actual_tier or 0, record.dtype)
                    ratios.append(measured * GIB / max(stage.total for stage in stages))
            if ratios:
                self._corrections[key] = min(max(median(ratios), CORRECTION[0]), CORRECTION[1])
        return self._corrections[key]


def climbed(record: RunRecord) -> bool:
    """Whether a run ran out of memory on the tier of its prediction: then the measured peak is of both attempts."""
    return record.requested_tier is not None and record.actual_tier != record.requested_tier


class _Case:
    """One clip, and what its forecast needs: family, device, dtype, budget."""

    def __init__(self, forecaster: Forecaster, params: ClipParams, model: VideoModel | None, dtype: str | None) -> None:
        self.forecaster, self.params, self.model = forecaster, params, model
        self.family: type[VideoModel]
        self.family, self.checkpoint = (type(model), "") if model is not None else models.find(params.model)
        known: Any = model if model is not None else self.family  # a family for one device alone says so before it is loaded
        self.device: str = getattr(known, "device", "") or forecaster.device or default_device()
        asked = dtype or params.dtype
        if asked == "auto":
            asked = getattr(known, "dtype", "") or (self.family.cuda_dtype if self.device.startswith("cuda") else "float32")
        self.dtype: str = asked
        self.budget = forecaster.budget_of(self.device)
        self.correction = forecaster.correction_of(self)
        self.base = 0 if self.device.startswith("cuda") else self._base()

    def _base(self) -> int:
        """Bytes of this process without the model; as many as a fresh one has, where this one has not loaded all of it yet."""
        scipy = 0 if self.params.scheduler in WITHOUT_SCIPY else SCIPY_BYTES
        fresh = PROCESS_BYTES + scipy + (COMPILER_BYTES if self.family.size_gb else 0)
        if self.model is None or self.forecaster.budget is not None:
            return fresh
        weights = self.cost(self.params, 0)[0].weights
        held = psutil.Process().memory_info().rss - weights
        return max(fresh, held if "scipy.stats" in sys.modules else held + scipy)

    def cost(self, params: ClipParams, tier: int, dtype: str = "") -> tuple[StageCost, ...]:
        """As VideoModel.cost, for this case's model; each shape is asked once."""
        dtype = dtype or self.dtype
        key = (id(self.model), params.model, params.image, self.device, dtype, tier, *row_of(params))
        if key not in self.forecaster._costs:
            found = self.family.cost(
                params, checkpoint=self.checkpoint, device=self.device, dtype=dtype, tier=tier, loaded=self.model
            )
            self.forecaster._costs[key] = found
        return self.forecaster._costs[key]

    def of_standard(self, stages: tuple[StageCost, ...], tier: int) -> float | None:
        """See Forecast.of_standard."""
        given = self.params.given()
        if not given.get("lora") and all(given.get(name) in (None, NEUTRAL[name]) for name in LEVERS):
            return None
        plain = ClipParams(**{name: value for name, value in given.items() if name not in HURRIED})
        whole = self.cost(models.resolve(plain, kind=self.family), tier)
        return sum(stage.flops for stage in stages) / max(sum(stage.flops for stage in whole), 1)

    def fits(self, stages: tuple[StageCost, ...]) -> bool:
        return _peak(stages, self.base, self.correction) <= self.budget.bytes

    def nearest(self, tier: int) -> tuple[ClipParams, ...]:
        """The nearest smaller resolution alone, and the nearest fewer frames alone, that fit on a tier."""
        return tuple(near for near in (self._nearest(self._smaller(), tier), self._nearest(self._shorter(), tier)) if near)

    def _smaller(self) -> list[ClipParams]:
        """The clip in all smaller resolutions of about its shape, the largest first."""
        params, own = self.params, self.family.size_multiple
        step = 64 if not params.height % 64 and not params.width % 64 and not 64 % own else max(own, 8 // own * own)
        long, short = max(params.height, params.width), min(params.height, params.width)
        sizes = []
        for side in range(long - step, SIDE_MIN - 1, -step):
            other = max(SIDE_MIN, round(side * short / long / step) * step)
            sizes.append((side, other) if params.height >= params.width else (other, side))
        return [params.replace(resolution=f"{height}x{width}") for height, width in sizes if height * width]

    def _shorter(self) -> list[ClipParams]:
        return [self.params.replace(num_frames=frames) for frames in range(self.params.num_frames - 1, 1, -1)]

    def _nearest(self, candidates: list[ClipParams], tier: int) -> ClipParams | None:
        """The first of the candidates, the largest first, that fits."""
        possible = [params for params in candidates if self._can(params)]
        place = bisect_left(possible, True, key=lambda params: self.fits(self.cost(params, tier)))
        return possible[place] if place < len(possible) else None

    def _can(self, params: ClipParams) -> bool:
        try:
            self.family.check(params)
        except I2VLabError:
            return False
        return True
