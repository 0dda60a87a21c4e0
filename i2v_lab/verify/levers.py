"""Checks of the levers: whether each works here, what it takes, and how far its clip is from the plain one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from i2v_lab.clip.levers import CACHES, LEVERS, NEUTRAL
from i2v_lab.models.base import VideoModel
from i2v_lab.verify.bench import Bench, Clip, Subject, apart
from i2v_lab.verify.checks import taken
from i2v_lab.verify.result import NotHere, Result

STEPS = 6  # enough for a cache to reuse something
INTERVAL = "0.2-0.8"
REFUSALS = ("pip install", "; nearest: ")  # in the reason where a device or a package is missing, and nothing is broken
SLOW = ("compile", "backend")  # levers that compile or convert a network first


def choices(family: type[VideoModel]) -> Iterator[tuple[str, str]]:
    """(lever, value) of all levers that a family says it supports, a value of each kind."""
    for lever in LEVERS:
        if lever == "cache":
            values = [f"{kind}:{CACHES[kind].default:g}" for kind in family.caches]
        elif lever == "guidance_interval":
            values = [INTERVAL] if lever in family.reads else []
        else:
            values = [value for value in family.levers.get(lever, ()) if value != NEUTRAL[lever]]
        yield from ((lever, value) for value in values)


def lever(bench: Bench, subject: Subject, field: str, value: str, plain: Callable[[], Clip]) -> Result:
    """7. One lever beside the plain clip: works or not, time, memory, how far."""
    name = f"{field}={value} {subject.name}"
    if not bench.full and field in SLOW:
        raise NotHere("it compiles or converts for minutes, and networks are small on a CPU")
    first = plain()
    frames = first.whole()
    changes: dict[str, Any] = {field: value}
    made = bench.clip(subject, tier=first.record.actual_tier, num_inference_steps=STEPS, **changes)
    if made.record.status == "failed" and any(word in made.record.reason for word in REFUSALS):
        raise NotHere(made.record.reason)
    figures = apart(frames, made.whole()) | taken(bench, subject, made)
    before, now = (clip.seconds.get("denoise", 0.0) for clip in (first, made))
    figures["denoise_share"] = now / before if before else None
    memory = f", {figures['allocated_gib']:.2f} GiB" if "allocated_gib" in figures else ""
    far = "equal frames" if figures["equal"] else f"{figures['mean_levels']:.2g} levels from it on the mean"
    share = f"denoising takes {now / before:.2f} of the plain clip's" if before else "no time was measured"
    return Result(name, "passed", f"{share}{memory}; {far}", figures)
