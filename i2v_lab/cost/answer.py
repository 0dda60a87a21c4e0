"""What a forecast says: what a clip takes, whether it fits and on which tier, in numbers and in a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from i2v_lab.clip.levers import BACKENDS, CHOSEN, NEUTRAL, at_most, cache_of
from i2v_lab.clip.params import ClipParams
from i2v_lab.cost.budget import Budget
from i2v_lab.cost.timing import Span
from i2v_lab.devices.hardware import GIB
from i2v_lab.errors import Message
from i2v_lab.models.base import StageCost
from i2v_lab.models.parallel import devices_of


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
        corrected: how many runs that is drawn from.
        budget: the memory that it may take.
        flops: floating-point operations of the whole clip. least_flops: where what its cache saves depends on data, as few at least.
        of_standard: flops over those of the same clip with the steps and guidance of the family's standard preset, and no lever; None
            where it has no lever and no LoRA.
        other_code: whether it is computed by other code than torch's own, which no run on this device shows the seconds of.
        time: seconds without loading the model, and the range in which nine of ten are; None where no run of this model on this
            device is known.
        runs: how many runs `time` is drawn from.
        last_tier: the tier that `stages` are of.
        nearest: where it fits on no tier, the nearest smaller resolution alone, and the nearest number of frames alone,
            that fit on the last one. They are advice: nothing is changed.
        parallel: on how many devices it is made, beginning with `device`; then memory and FLOPs are those of each of them.
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
    other_code: bool = False
    nearest: tuple[ClipParams, ...] = ()
    parallel: int = 1
    corrected: int = 0

    @property
    def peak_gib(self) -> float:
        """The most memory that it takes at once, GiB: of the device, or of the process on a CPU."""
        return peak(self.stages, self.base, self.correction) / GIB

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
        on, each = self.device, ""
        if self.parallel > 1:
            on, each = f"{self.parallel} devices ({' and '.join(devices_of(self.device, self.parallel))})", " on each"
        made = f"{self.params.resolution}, {self.params.num_frames} frames on {on} in {self.dtype}"
        peak = f"{self.peak_gib:.1f} GiB{each} ({highest.stage})"
        free = f"{self.free_gib:.1f} GiB, {self.budget.name}"
        if self.tier is None:
            where = f" even on tier {self.last_tier} ({tier_name(self.last_tier)})" if self.last_tier else ""
            return f"{made} does not fit: it takes {peak}{where}, of {free}; {self.advice()}"
        fits = f"fits on tier {self.tier} ({tier_name(self.tier)})" if self.tier else "fits"
        flops = f"{self.least_flops / 1e12:.3g} to {_flops(self.flops)}" if self.least_flops < self.flops else _flops(self.flops)
        return "; ".join([f"{made} {fits}: {peak}, of {free}; {self.time or f'{flops}, time not known yet here'}", *self.remarks()])

    def remarks(self) -> list[Message]:
        """What is to be said of the levers and the LoRAs of the clip."""
        found = []
        if self.other_code:
            levers = ", ".join(
                f"{name} {value}" for name in CHOSEN if (value := getattr(self.params, name)) not in (None, NEUTRAL[name])
            )
            found.append(Message(f"what {levers} does to the time depends on the device", "plan.by_device", levers=levers))
        if at_most(self.params):
            found.append(Message("what the cache saves depends on the clip", "plan.by_data"))
            if (cache := cache_of(self.params)) and cache.kind == "mag":
                more = "the first clip of these settings measures the cache's ratios, which takes one run more without the cache"
                found.append(Message(more, "plan.calibrates"))
        if self.params.backend in BACKENDS:
            more = "the networks are converted once a shape, which takes minutes and is not in this time"
            found.append(Message(more, "plan.converts"))
        if not at_most(self.params) and self.of_standard is not None and abs(self.of_standard - 1) > 0.005:
            share = f"{self.of_standard:.2g}"
            found.append(Message(f"{share} of the FLOPs of standard", "plan.share", share=share))
        return found

    def advice(self) -> str:
        """What would fit, in words."""
        if not self.nearest:
            return Message("no smaller one of these fits either; use another device, or close other programs", "plan.none")
        shown = [
            f"{near.resolution}" if near.num_frames == self.params.num_frames else f"{near.num_frames} frames"
            for near in self.nearest
        ]
        return Message(f"nearest that fits: {', or '.join(shown)}", "plan.nearest", settings=" / ".join(shown))


def _flops(flops: int) -> str:
    return f"{flops / 1e12:.3g} TFLOP"


def peak(stages: tuple[StageCost, ...], base: int, correction: float) -> float:
    """Bytes at the highest point of a clip, of the process or the device."""
    return base + max(stage.total for stage in stages) * correction


def tier_note(tier: int) -> str:
    """The name of a tier in brackets; "" of a number that none has."""
    return f" ({tier_name(tier)})" if 0 <= tier <= 6 else ""


def tier_name(number: int) -> str:
    """What a tier of the memory ladder is called."""
    from i2v_lab.models.memory.tiers import TIERS

    return TIERS[number].name
