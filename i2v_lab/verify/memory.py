"""Checks of memory: the tiers of the ladder, predictions beside what was measured, running out of it, and what stays behind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from statistics import median
from typing import Any

import psutil
import torch

from i2v_lab.clip.levers import LEVERS, NEUTRAL
from i2v_lab.clip.progress import Preview, Progress
from i2v_lab.devices.gpus import gpu
from i2v_lab.devices.hardware import GIB
from i2v_lab.errors import I2VLabError
from i2v_lab.models.memory.tiers import TIERS, with_streams
from i2v_lab.verify.bench import Bench, Clip, Subject, apart, collect
from i2v_lab.verify.checks import predicted, taken
from i2v_lab.verify.result import NotHere, Result

OFF = 0.2  # a prediction that is further from what was measured, as a share of it, has failed
LEAK_RAM, LEAK_VRAM = 32 * 2**20, 8 * 2**20  # bytes that may stay behind after a clip
LEAK_CLIPS = 3  # clips that must each leave something behind
SHAPES: dict[bool, tuple[dict[str, Any], ...]] = {  # the ladder of shapes, small and of the real size
    False: ({"resolution": "64x96", "num_frames": 3}, {"resolution": "128x128", "num_frames": 4}, {"resolution": "192x192", "num_frames": 6}),
    True: ({"resolution": "256p", "num_frames": 8}, {"resolution": "512p", "num_frames": 8}, {"resolution": "512p", "num_frames": 16},
           {"resolution": "768p", "num_frames": 16}),
}  # fmt: skip


def tiers(bench: Bench, subject: Subject, tier: int, plain: Callable[[], Clip], *, streams: bool = False) -> Result:
    """4. One tier: does it run, how far are its frames from those of the first tier, and what does it take?"""
    name = f"tier {tier} {subject.name}" + (" with streams" if streams else "")
    first = plain()
    if first.record.status not in ("done", "stopped"):
        raise I2VLabError(f"the first tier does not work: {first.record.reason}")
    if streams and bench.device == "cpu":
        raise NotHere("a CPU has no streams")
    if streams:
        subject.model().use_tier(0)  # the hooks are made again, with a stream
    with with_streams() if streams else nullcontext():
        made = bench.clip(subject, tier=tier, track=True)
    try:
        figures = apart(first.whole(), made.whole()) | taken(bench, subject, made)
    finally:
        if streams:
            subject.model().use_tier(0)
    assert made.record.params  # noqa: S101
    declared = subject.family.pixel_changes(tier, made.record.params)
    seconds, before = sum(made.seconds.values()), sum(first.seconds.values())
    costs = f"{figures['allocated_gib']:.2f} GiB" if "allocated_gib" in figures else "memory not measured"
    how = f"{costs}, {seconds / before:.2f} of the time of tier {first.record.actual_tier}"
    if made.record.actual_tier != tier:
        return Result(name, "failed", f"it ran out of memory, and was made on tier {made.record.actual_tier}", figures)
    if figures["equal"]:
        return Result(name, "passed", f"{TIERS[tier].name}: equal frames; {how}", figures)
    far = f"frames differ by {figures['mean_levels']:.2g} levels on the mean, {figures['max_levels']} at most"
    if declared:
        return Result(name, "passed", f"{TIERS[tier].name}: {far}, as it says ({', '.join(declared.values())}); {how}", figures)
    return Result(name, "failed", f"{TIERS[tier].name}: {far}, and it says that it changes none; {how}", figures)


def ladder(bench: Bench, subject: Subject) -> Result:
    """5. Memory as it was predicted and as it was measured, over several shapes."""
    if subject.weights == "none":
        raise NotHere("it has no weights, and NumPy's memory is not tensors")
    name, tier = f"memory {subject.name}", subject.family.tiers(bench.device)[0]
    before = (clip for other, clip in bench.made if other is subject and clip.allocated and clip.record.actual_tier == tier)
    rows = [_row(bench, subject, clip) for clip in before if not levers_of(clip)]
    shapes = {(row["resolution"], row["num_frames"]) for row in rows}
    for shape in SHAPES[bench.full]:
        params = subject.params(**shape)
        if (params.resolution, params.num_frames) not in shapes:
            made = bench.clip(subject, tier=tier, track=True, **shape)
            made.whole()
            if made.record.actual_tier != tier:
                break  # it ran out of memory, and larger ones do too
            rows.append(_row(bench, subject, made))
    if not rows or rows[0]["measured_gib"] is None:
        raise NotHere("this device does not say what tensors take")
    ratios = [row["measured_gib"] / row["predicted_gib"] for row in rows]
    worst = max(rows, key=lambda row: abs(row["predicted_gib"] / row["measured_gib"] - 1))
    error = worst["predicted_gib"] / worst["measured_gib"] - 1
    figures = {"shapes": rows, "correction": median(ratios), "worst_error": error, **_margin(rows, bench.baseline)}
    margin = f"; {figures['margin_gib']:.2f} GiB beside the tensors" if "margin_gib" in figures else ""
    where = f"{worst['resolution']}, {worst['num_frames']} frames"
    if abs(error) > OFF:
        what = "low" if error < 0 else "high"
        line = (
            f"predicted {abs(error):.0%} too {what} at {where}; measured is {figures['correction']:.2f} of it on the median{margin}"
        )
        return Result(name, "failed", line, figures)
    line = f"{len(rows)} shapes: measured is {figures['correction']:.3f} of predicted on the median; off by {error:+.1%} at most ({where}){margin}"
    return Result(name, "passed", line, figures)


def levers_of(clip: Clip) -> list[str]:
    """The levers that a clip was made with."""
    return [name for name in LEVERS if clip.record.params and getattr(clip.record.params, name) not in (None, NEUTRAL[name])]


def _row(bench: Bench, subject: Subject, clip: Clip) -> dict[str, Any]:
    found = taken(bench, subject, clip)
    return {"resolution": found["resolution"], "num_frames": found["num_frames"], "predicted_gib": found["predicted_gib"],
            "measured_gib": found.get("allocated_gib"), "reserved_gib": found.get("reserved_gib"), "driver_gib": found.get("driver_gib")}  # fmt: skip


def _margin(rows: list[dict[str, Any]], baseline: int | None) -> dict[str, float]:
    """What the driver gave beyond tensors, at most: kernels and their workspaces, and pieces that cannot be used."""
    found = [row["driver_gib"] - row["measured_gib"] for row in rows if row["driver_gib"] is not None]
    return {"margin_gib": max(0.0, max(found) - (baseline or 0) / GIB), "baseline_gib": (baseline or 0) / GIB} if found else {}


class _Short(Progress):
    """Says once, in the first step of denoising, that memory is short: as the device itself would."""

    def __init__(self) -> None:
        self.left, self.denoises = 1, False

    def stage(self, name: str, total: int | None = None) -> None:
        self.denoises = name == "denoise"

    def step(self, preview: Preview | None = None) -> None:
        if self.denoises and self.left:
            self.left = 0
            raise torch.OutOfMemoryError("out of memory, put in by i2v-lab verify")


def out_of_memory(bench: Bench, subject: Subject) -> Result:
    """6. Out of memory on purpose: the ladder climbs, nothing is left behind, the next clip works."""
    possible = subject.family.tiers(bench.device)
    if len(possible) < 2:
        raise NotHere("it has one tier alone")
    name, first = f"out of memory {subject.name}", possible[0]
    plain = bench.clip(subject, tier=first).whole()
    collect()
    before = bench.held()
    if bench.device.startswith("cuda"):
        made, how = _limited(bench, subject, first), "a limit on the memory"
    else:
        made, how = bench.clip(subject, tier=first, listener=_Short()), "an error that was put in"
    frames, climbed = made.whole(), made.record.actual_tier
    after = bench.clip(subject, tier=first).whole()
    collect()
    figures = apart(plain, frames) | {
        "tier": climbed,
        "left_bytes": bench.held() - before,
        "next_equal": apart(plain, after)["equal"],
    }
    assert made.record.params  # noqa: S101
    if climbed == first:
        return Result(name, "failed", f"{how} did not make it climb: it was made on tier {first}", figures)
    if not figures["equal"] and not subject.family.pixel_changes(climbed or 0, made.record.params):
        return Result(name, "failed", f"it climbed to tier {climbed}, and made other frames", figures)
    if not figures["next_equal"]:
        return Result(name, "failed", f"it climbed to tier {climbed}, and the next clip has other frames", figures)
    if figures["left_bytes"] > LEAK_VRAM:
        return Result(name, "failed", f"{figures['left_bytes'] / 2**20:.0f} MiB stayed behind on the device", figures)
    line = f"{how}: it climbed from tier {first} to {climbed}, left nothing behind, and the next clip is as before"
    return Result(name, "passed", line, figures)


def _limited(bench: Bench, subject: Subject, first: int) -> Clip:
    """A clip on a device of which torch may take too little for the first tier: half of what lies between it and the last one."""
    params = subject.params()
    record = bench.made[-1][1].record
    peaks = [max(stage.total for stage in predicted(bench, subject, record.model_copy(update={"params": params, "actual_tier": tier})))
             for tier in (first, subject.family.tiers(bench.device)[-1])]  # fmt: skip
    measured = bench.made[-1][1].allocated or peaks[0]
    limit = (min(peaks[0], measured) + peaks[1]) / 2
    about = gpu(bench.device)
    if about is None or limit > 0.95 * measured:
        raise NotHere("the first tier takes hardly more than the last one")
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / about.total), bench.device)
    try:
        collect()
        return bench.clip(subject, tier=first)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)


def left_behind(bench: Bench, subject: Subject) -> Result:
    """6. Clip after clip of one shape: what each leaves behind."""
    name, tier = f"clip after clip {subject.name}", subject.family.tiers(bench.device)[0]
    process = psutil.Process()
    ram: list[int] = []
    vram: list[int] = []
    for _ in range(LEAK_CLIPS + 2):
        bench.clip(subject, tier=tier, num_inference_steps=1).whole()
        collect()
        ram.append(int(process.memory_info().rss))
        vram.append(bench.held())
    grown = {"ram": _each(ram), "vram": _each(vram)}
    figures = {f"{kind}_bytes_a_clip": max(0, size) for kind, size in grown.items()}
    for kind, most in (("ram", LEAK_RAM), ("vram", LEAK_VRAM)):
        if grown[kind] > most:
            what = "the process" if kind == "ram" else "the device"
            return Result(name, "failed", f"each clip leaves {grown[kind] / 1e6:.0f} MB behind in the memory of {what}", figures)
    return Result(name, "passed", f"{LEAK_CLIPS} clips one after the other leave nothing behind", figures)


def _each(seen: list[int]) -> int:
    """Bytes that each clip left behind, at least; what the first one leaves may be needed by all."""
    return min(after - before for before, after in pairwise(seen[1:]))
