"""What measuring costs: `python tests/bench/bench_metrics.py`. Figures are printed, not asserted; compare within one run."""

from __future__ import annotations

import logging
import os
import resource
import tempfile
import time
import warnings
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from i2v_lab import measure
from i2v_lab.clip import video
from i2v_lab.clip.picture import open_picture
from i2v_lab.settings import Settings
from i2v_lab.store import Store
from i2v_lab.sweep import Sweep, run_sweep

ROUNDS = 3
CLIPS = 6
BASE = {"image": "sample:coffee", "prompt": "zoom in", "num_frames": 16}
SIZES = {
    "512p, 50 steps": {"resolution": "512p", "num_inference_steps": 50},
    "256p, 25 steps": {"resolution": "256p", "num_inference_steps": 25},
}


def cpu() -> float:
    """CPU seconds of this process and of those it started and that ended (FFmpeg)."""
    used = [resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def one_clip(folder: Path) -> None:
    """All metrics of a 16-frame 512p clip, on one core."""
    cv2.setNumThreads(1)
    picture = cv2.resize(open_picture("sample:astronaut").rgb, (512, 512))
    clip = video.write(np.stack([np.roll(picture, 2 * k, axis=1) for k in range(16)]), folder, stem="clip", fps=Fraction(8)).path
    measure(clip, prompt="camera panning left", image="sample:astronaut")
    before = cpu()
    for _ in range(ROUNDS):
        measure(clip, prompt="camera panning left", image="sample:astronaut")
    print(f"{'all metrics of 16 frames of 512p, CPU':<60} {(cpu() - before) / ROUNDS:8.2f} s")


def share(folder: Path, name: str, size: dict[str, object]) -> None:
    """What of a sweep's time is measuring: the sweep's wall seconds, less those of its clips."""
    sweep = Sweep(name="bench", base={**BASE, **size}, seeds=list(range(CLIPS)))
    for number in range(2):  # the first time the model is loaded
        store = Store(folder / f"{name}-{number}")
        began = time.perf_counter()
        run_sweep(sweep, store, settings=Settings())
        took = time.perf_counter() - began
    clips = store.runs()["seconds_total"].sum()
    print(
        f"{f'run_sweep, {CLIPS} clips, {name}: all, clips alone':<60} {took:8.2f} s {clips:8.2f} s, {1 - clips / took:.0%} is not clips"
    )


def main() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    import torch

    torch.set_num_threads(1)
    print(f"{cores} cores, load {os.getloadavg()[0]:.1f}; clips are made with one thread")
    with tempfile.TemporaryDirectory() as folder:
        one_clip(Path(folder))
        for name, size in SIZES.items():
            share(Path(folder), name, size)


if __name__ == "__main__":
    main()
