"""Levers: fields of ClipParams that trade quality for time. Here is what their texts mean, and which steps of a run they change.

A lever has a value that changes nothing (NEUTRAL); a clip with it is the same clip as one without the lever.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

NEUTRAL: Mapping[str, str] = {
    "guidance_interval": "0-1", "cache": "deep:1", "quantization": "none", "backend": "torch", "compile": "none", "attention": "native",
}  # fmt: skip
LEVERS = tuple(NEUTRAL)
BACKENDS = ("openvino", "openvino-gpu", "openvino-npu")
"""What may compute networks in the place of torch: OpenVINO on the CPU, on Intel's GPU, on Intel's NPU."""
CHOSEN = ("quantization", "backend", "compile", "attention")  # the levers whose values are a few words

# The share of the steps in which attention is broadcast: the middle of the run, where it changes least from step to step
# (Zhao et al. 2024, Real-time video generation with pyramid attention broadcast).
PAB_SHARE = (0.2, 0.9)
TAYLOR_FIRST = 2  # the steps up to this one, from 0, are all computed: a slope needs some to begin with
FASTER_FROM = 0.359  # the share of the steps after which passes under the negative prompt may be left out: diffusers' timestep 641
# Ma et al. 2025, MagCache: of the first fifth of the steps all are computed, and of four in a row one at least.
MAG_FROM, MAG_MOST = 0.2, 3


@dataclass(frozen=True)
class CacheKind:
    """One kind of cache.

    Attributes:
        about: what it does, in words.
        number: what the number after the colon is. low, high: its range. default: where none is given.
        whole: whether it is a whole number.
        most: where what it saves depends on data, so that it cannot be predicted: a cache that saves as much at least. "": it does not.
    """

    about: str
    number: str
    low: float
    high: float
    default: float
    whole: bool = False
    most: str = ""


CACHES: Mapping[str, CacheKind] = {
    "deep": CacheKind("the deep blocks of a UNet run every Nth step", "steps", 1, 20, 3, whole=True),
    "pab": CacheKind("attention layers run every Nth step, in the middle of the run", "steps", 2, 20, 2, whole=True),
    "first-block": CacheKind(
        "the blocks after the first run where its output changed by more than a threshold", "threshold", 0, 1, 0.1, most="taylor:20"
    ),
    "taylor": CacheKind(
        "the network runs every Nth step, and its output is extended by a Taylor series between", "steps", 2, 20, 3, whole=True
    ),
    "mag": CacheKind(
        "no block runs while what they add hardly grows or shrinks, by ratios that are measured once", "threshold", 0, 1, 0.06,
        most="taylor:4",
    ),
    "faster": CacheKind(
        "late in the run the pass under the negative prompt runs every Nth step, and attention every other step between",
        "steps", 2, 20, 5, whole=True,
    ),
}  # fmt: skip


class Levers(Protocol):
    """What of ClipParams is read here."""

    @property
    def guidance_scale(self) -> float: ...
    @property
    def guidance_interval(self) -> str | None: ...
    @property
    def cache(self) -> str | None: ...
    @property
    def quantization(self) -> str | None: ...
    @property
    def backend(self) -> str | None: ...


class Cache(NamedTuple):
    """A cache as it was asked for, such as deep:3."""

    kind: str
    number: float


def parse_interval(value: Any) -> str | None:
    """Read a guidance interval such as "0.1-0.8", shares of the steps. Returns the one way to write it; "" is none."""
    text = str(value).strip()
    if value is None or not text:
        return None
    match = re.fullmatch(r"(\d*\.?\d+)\s*-\s*(\d*\.?\d+)", text)
    if not match or not 0 <= float(match[1]) < float(match[2]) <= 1:
        raise ValueError(f"expected two shares of the steps from 0 to 1, the lower first, such as 0.1-0.8, got {value!r}")
    return f"{float(match[1]):g}-{float(match[2]):g}"


def parse_cache(value: Any) -> str | None:
    """Read a cache such as "deep:3". Returns the one way to write it; "" is none."""
    text = str(value).strip().lower()
    if value is None or not text:
        return None
    name, colon, number = text.partition(":")
    if (kind := CACHES.get(name)) is None:
        raise ValueError(f"expected {', '.join(f'{name}:{kind.default:g}' for name, kind in CACHES.items())}, got {value!r}")
    try:
        found = float(number) if colon else kind.default
    except ValueError:
        found = -1.0
    if not kind.low <= found <= kind.high or (kind.whole and found % 1):
        what = "a whole number" if kind.whole else "a number"
        raise ValueError(
            f"expected {what} of {kind.number} from {kind.low:g} to {kind.high:g} after {name}, such as {name}:{kind.default:g}, got {value!r}"
        )
    return f"{name}:{found:g}"


def parse_choice(value: Any) -> str | None:
    """Read a lever that is one word. Returns the one way to write it; "" is none, and what a library would choose by itself is native."""
    text = str(value).strip().lower()
    return None if value is None or not text else NEUTRAL["attention"] if text == "auto" else text


def cache_of(params: Levers) -> Cache | None:
    """The cache that a clip asks for; None where it asks for none, or for one that changes nothing."""
    if params.cache is None or params.cache == NEUTRAL["cache"]:
        return None
    name, _, number = params.cache.partition(":")
    return Cache(name, float(number))


def kept_as(params: Levers) -> str:
    """How the weights of the network that denoises are loaded: int8, fp8, or none. What is no torch quantizes for itself."""
    return params.quantization or "none" if params.backend in (None, NEUTRAL["backend"]) else "none"


def at_most(params: Levers) -> str:
    """Where what a clip's cache saves depends on data: a cache that saves as much at least; "" where it can be predicted."""
    cache = cache_of(params)
    return CACHES[cache.kind].most if cache else ""


class Step(NamedTuple):
    """One step of a run.

    Attributes:
        guided: whether there is a pass under the negative prompt too.
        reused: whether the cache gives what it kept of an earlier step.
        attends: of a step that reuses, with `faster`: whether its attention is computed.
    """

    guided: bool
    reused: bool
    attends: bool = True


def steps_of(
    params: Levers, count: int, guided: bool | None = None, *, switch: int | None = None, ratios: Sequence[float] = ()
) -> list[Step]:
    """What each step of a run does. The run follows it, and so does the prediction of its cost.

    Where guidance begins or ends the batch changes, and nothing is reused.

    Args:
        count: calls of the scheduler; some make two a step.
        guided: whether there is guidance at all; by default where guidance_scale is above 1.
        switch: the step at which a second network takes over, which has kept nothing.
        ratios: of `mag`: how much larger what the blocks add is than in the step before. Without them it reuses nothing.
    """
    if guided is None:
        guided = params.guidance_scale > 1
    shares = [guided and _within(params.guidance_interval, step / count) for step in range(count)]
    kept = cache_of(params)
    may = [step > 0 and step != switch and shares[step] == shares[step - 1] for step in range(count)]
    if kept is None:
        reused = [False] * count
    elif kept.kind == "mag":
        reused = _by_magnitude(kept.number, may, ratios)
    else:
        reused = [same and _reuses(kept, step, count) for step, same in enumerate(may)]
    odd = kept is not None and kept.kind == "faster"
    return [
        Step(share, again, attends=not (odd and again and step % 2))
        for step, (share, again) in enumerate(zip(shares, reused, strict=True))
    ]


def _by_magnitude(threshold: float, may: Sequence[bool], ratios: Sequence[float]) -> list[bool]:
    """Which steps MagCache reuses: those after which what it has missed is still below the threshold."""
    product, missed, skipped, reused = 1.0, 0.0, 0, []
    for step, (same, ratio) in enumerate(zip(may, ratios or [float("inf")] * len(may), strict=True)):
        late = step >= int(MAG_FROM * len(may) + 0.5)
        product, skipped = product * ratio, skipped + 1
        missed += abs(1 - product)
        reused.append(late and same and missed <= threshold and skipped <= MAG_MOST)
        if not reused[-1]:
            product, missed, skipped = 1.0, 0.0, 0
    return reused


def _within(interval: str | None, share: float) -> bool:
    if interval is None:
        return True
    low, high = map(float, interval.split("-"))
    return low - 1e-9 <= share < high - 1e-9


def _reuses(kept: Cache, step: int, count: int) -> bool:
    every = int(kept.number)
    if kept.kind == "deep":
        return step % every != 0
    if kept.kind == "pab":
        first = -int(-PAB_SHARE[0] * count // 1)  # the first step in the middle
        return first <= step < PAB_SHARE[1] * count - 1e-9 and (step - first) % every != 0
    if kept.kind == "taylor":
        return step > TAYLOR_FIRST and (step - TAYLOR_FIRST) % every != 0
    if kept.kind == "faster":
        return step > FASTER_FROM * count and step % every != 0
    return False  # by what is in the clip
