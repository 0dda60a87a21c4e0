"""Forecasts are made here: the first tier on which a clip fits, its time by earlier runs, and what would fit if it does not."""

from __future__ import annotations

import math
import sys
from contextlib import nullcontext
from functools import cache
from types import SimpleNamespace
from typing import Any

import psutil

from i2v_lab import models
from i2v_lab.clip.levers import CHOSEN, LEVERS, NEUTRAL, at_most
from i2v_lab.clip.params import ClipParams
from i2v_lab.cost.answer import Forecast, peak, tier_note
from i2v_lab.cost.budget import Budget
from i2v_lab.cost.measured import correction, margin_bytes, measured_store
from i2v_lab.cost.nearest import nearest
from i2v_lab.cost.timing import OTHER_CODE, Rates, Row, Span, code_of, row_of
from i2v_lab.devices.gpus import default_device, gpu
from i2v_lab.devices.hardware import machine
from i2v_lab.errors import ParamsError
from i2v_lab.models.base import StageCost, VideoModel
from i2v_lab.models.memory.cost_cache import known_only
from i2v_lab.models.parallel import check, name_of, share
from i2v_lab.models.parallel.rules import TIERS as SHARED_TIERS
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


def plan(
    params: ClipParams, model: VideoModel | None = None, *, device: str | None = None, dtype: str | None = None,
    budget: Budget | None = None, store: Store | None = None, tier: int | None = None, parallel: int = 1,
) -> Forecast:  # fmt: skip
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
        parallel: on how many devices.

    Raises:
        ModelError: no such model, or it cannot be predicted. UnsupportedParams: it cannot make this clip.
    """
    forecaster = Forecaster(device=device, budget=budget, store=store, parallel=parallel)
    return forecaster.plan(params, model, dtype=dtype, tier=tier)


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
        self, *, device: str | None = None, budget: Budget | None = None, store: Store | None = None, device_name: str = "",
        parallel: int = 1, held: int = 0,
    ) -> None:  # fmt: skip
        """Args: as `plan`. Free memory is read once a device.

        device_name: of a device that is elsewhere and whose runs are in the store: of a worker of a cluster.
        parallel: on how many devices a clip is made. held: bytes that the processes for that hold of each device already.
        """
        self.device_name, self.parallel = device_name, parallel
        self.device = None if device == "auto" else device
        self.budget, self.store = budget, store
        self.budget_of = cache(lambda device: budget or Budget.of_each(device, parallel, held, self._margin(device)))
        self._stores = [one for one in (store, measured_store(store.directory) if store else None) if one]
        self._rates: dict[tuple[str, ...], Rates] = {}
        self._corrections: dict[tuple[str, ...], tuple[float, int]] = {}
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
        check(case.family, params, self.parallel, case.checkpoint)
        tiers = case.tiers
        if tier is not None and tier not in tiers:
            raise ParamsError(
                f"tier: expected one of {', '.join(map(str, tiers))} for {case.family.name} on {case.device}, got {tier}{tier_note(tier)}"
            )
        tried = (tier,) if tier is not None else tiers
        fits, last, stages = None, tried[0], case.cost(params, tried[0])
        for number in tried:
            last, stages = number, case.cost(params, number)
            if case.fits(stages):
                fits = number
                break
        row = row_of(params)
        rates = self._rates_of(case, last, code_of(row)) if timed else None
        wider = rates is not None and not rates.runs and any(code_of(row))
        if wider:
            rates = self._rates_of(case, last, code_of(row_of(params.replace(**dict.fromkeys(CHOSEN)))))
        time = rates.seconds(row, stages) if rates else None
        if wider and time:
            time = Span(time.expected, *(share * bound for share, bound in zip(OTHER_CODE, time[1:], strict=True)))
        least = stages
        if most := at_most(params):  # what it saves at least is nothing
            quick = params.replace(cache=most)
            least = case.cost(quick, last)
            if rates and time and (short := rates.seconds(row_of(quick), least)) is not None:
                time = Span(math.sqrt(short.low * time.high), short.low, time.high)
        return Forecast(
            params=params, model=case.family.name, device=case.device, dtype=case.dtype, tier=fits, stages=stages,
            base=case.base, correction=case.correction, corrected=case.corrected, budget=case.budget, flops=sum(stage.flops for stage in stages),
            time=time, other_code=any(code_of(row)) and (wider or rates is None), runs=rates.runs if rates else 0, parallel=self.parallel,
            last_tier=last, least_flops=sum(stage.flops for stage in least), of_standard=case.of_standard(stages, last) if advise else None,
            nearest=nearest(params, case.family, lambda near: case.fits(case.cost(near, last))) if fits is None and advise else (),
        )  # fmt: skip

    @property
    def _is_elsewhere(self) -> bool:
        """Whether it is about a card, and not about a device that makes clips."""
        return self.budget is not None and not self.device_name

    def _name_of(self, case: _Case) -> str:
        return self.device_name or name_of(str(machine(case.device)["device_name"]), self.parallel)

    def _rates_of(self, case: _Case, tier: int, code: tuple[Any, ...]) -> Rates | None:
        """Rates of earlier runs of this network, in this dtype, with the same offloading: others need other times for a FLOP."""
        if self.store is None or self._is_elsewhere:  # no run was made on a card that is not here
            return None
        offload = tier if tier >= 3 and case.device.startswith("cuda") else 0
        fingerprint = case.model.fingerprint if case.model is not None else ""
        key = (case.family.name, case.device, case.dtype, case.params.model, fingerprint, str(offload), *code)
        if key not in self._rates:

            def cost(row: Row) -> tuple[StageCost, ...]:
                resolution, frames, steps, guidance, scheduler, *levers = row
                then = case.params.replace(resolution=resolution, num_frames=frames, num_inference_steps=steps, guidance_scale=guidance,
                                           scheduler=scheduler, **dict(zip(LEVERS, levers, strict=True)))  # fmt: skip
                return case.cost(then, case.tiers[0])

            self._rates[key] = Rates(
                self._stores, case.family.name, self._name_of(case), cost, code,
                dtype=case.dtype, model=case.params.model, fingerprint=fingerprint, offload=offload,
            )  # fmt: skip
        return self._rates[key]

    def _margin(self, device: str) -> int | None:
        if self.store is None or (about := gpu(device)) is None:
            return None
        return margin_bytes(self.store.directory, about.name, about.total)

    def correction_of(self, case: _Case) -> tuple[float, int]:
        """As the function `correction`, for a model on a GPU that makes clips; otherwise (1, 0)."""
        if case.device == "cpu" or self.store is None or self._is_elsewhere:
            return 1.0, 0
        key = (case.family.name, case.device, case.model.fingerprint if case.model is not None else "")
        if key not in self._corrections:
            self._corrections[key] = correction(
                self._stores, case.family.name, self._name_of(case), case.model.fingerprint if case.model is not None else None,
                lambda record: case.cost(record.params, record.actual_tier or 0, record.dtype) if record.params else (),
            )  # fmt: skip
        return self._corrections[key]


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
            asked = getattr(known, "dtype", "") or ("float32" if self.device == "cpu" else self.family.cuda_dtype)
        self.dtype: str = asked
        several, tiers = forecaster.parallel > 1, self.family.tiers(self.device)
        self.tiers = tuple(tier for tier in tiers if tier in SHARED_TIERS) if several else tiers
        self.budget = forecaster.budget_of(self.device)
        self.correction, self.corrected = forecaster.correction_of(self)
        self.base = self._base() if self.device == "cpu" else 0

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
            self.forecaster._costs[key] = share(found, self.forecaster.parallel)
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
        return peak(stages, self.base, self.correction) <= self.budget.bytes
