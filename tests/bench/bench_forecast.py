"""How far off predicted seconds are: `python tests/bench/bench_forecast.py`. Six clips of mixed shapes are made, then twenty others.

Figures are printed, not asserted: for wall seconds, in which the work of other programs is, and for CPU seconds, in which it is not.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import statistics
import tempfile
import warnings
from pathlib import Path

from i2v_lab import ClipParams, run_clip
from i2v_lab.clip.progress import Progress
from i2v_lab.clip.record import RunRecord, new_id
from i2v_lab.cost import plan
from i2v_lab.devices.hardware import machine
from i2v_lab.settings import Settings
from i2v_lab.store import Store

FITTED, JUDGED = 6, 20


def shape(chosen: random.Random) -> ClipParams:
    """A clip of the closed-form model: 128 to 768 pixels, 4 to 48 frames, 4 to 50 steps."""
    height, width = chosen.choice([(side, side) for side in (128, 192, 256, 384, 512, 640, 768)] + [(384, 640), (512, 768)])
    return ClipParams(
        image="sample:coffee", prompt=chosen.choice(["zoom in", "camera panning left", "ocean waves"]), resolution=f"{height}x{width}",
        num_frames=chosen.choice([4, 8, 12, 16, 24, 32, 48]), num_inference_steps=chosen.choice([4, 10, 20, 30, 50]),
        guidance_scale=chosen.choice([1, 6, 9]), scheduler=chosen.choice(["ddim", "euler", "dpm++-2m", "unipc", "lms"]),
        seed=chosen.randrange(100),
    )  # fmt: skip


class CpuSeconds(Progress):
    """CPU seconds of each stage, of this process and of FFmpeg: what other programs take is not in them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._began = "", 0.0

    def stage(self, name: str, total: int | None = None) -> None:
        used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        now = sum(one.ru_utime + one.ru_stime for one in used)
        self.seconds[self._name] = self.seconds.get(self._name, 0.0) + now - self._began
        self._name, self._began = name, now


def made(params: ClipParams, store: Store) -> dict[str, dict[str, float]]:
    """Make a clip: the seconds of its stages, by either clock."""
    heard = CpuSeconds()
    wall = run_clip(params, None, store, settings=Settings(device="cpu"), progress=heard).seconds
    cpu = {name: heard.seconds[name] for name in ("encode", "denoise", "decode", "write")}
    return {"wall": {**wall, "total": wall["total"] - wall["load"], "load": 0.0}, "CPU": {**cpu, "total": sum(cpu.values())}}


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    chosen = random.Random(0)  # noqa: S311 - the same shapes each time
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        clips, known = Store(Path(folder) / "clips"), {clock: Store(Path(folder) / clock) for clock in ("wall", "CPU")}
        made(ClipParams(image="sample:cat", resolution="64x64", num_frames=2), clips)  # the model is loaded
        for _ in range(FITTED):
            params = shape(chosen)
            for clock, seconds in made(params, clips).items():
                known[clock].save(RunRecord(
                    id=new_id(), status="done", params=params, seconds=seconds, model_name="closed-form", device="cpu",
                    device_name=str(machine("cpu")["device_name"]), dtype="float32",
                ))  # fmt: skip
        found: dict[str, list[tuple[float, bool, float]]] = {"wall": [], "CPU": []}
        for _ in range(JUDGED):
            params = shape(chosen)
            spans = {clock: plan(params, device="cpu", store=store).time for clock, store in known.items()}
            line = f"{params.resolution:>9} {params.num_frames:3} frames {params.num_inference_steps:3} steps"
            for clock, seconds in made(params, clips).items():
                time, true = spans[clock], seconds["total"]
                assert time is not None
                found[clock].append((abs(time.expected / true - 1), time.low <= true <= time.high, time.high / time.low))
                line += f"; {clock}: {time}, took {true:.1f}"
            print(line, flush=True)
    for clock, judged in found.items():
        errors, inside, widths = zip(*judged, strict=True)
        print(f"{clock} seconds: median error {statistics.median(errors):.0%}, largest {max(errors):.0%}; {sum(inside)} of {JUDGED} in "
              f"the range, whose end is {statistics.median(widths):.1f} times its beginning in the median")  # fmt: skip


if __name__ == "__main__":
    main()
