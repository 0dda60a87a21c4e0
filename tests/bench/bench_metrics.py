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
from i2v_lab.metrics import side
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


def on_the_side(folder: Path, name: str, size: dict[str, object]) -> None:
    """The same sweep with and without measuring, in turn: a machine that others use is not the same for long."""
    took: dict[bool, list[float]] = {True: [], False: []}
    for number in range(ROUNDS + 1):
        for on in (True, False):
            side.ON = on
            sweep = Sweep(name="bench", base={**BASE, **size}, seeds=list(range(CLIPS)))
            store = Store(folder / f"{name}-{on}-{number}")
            began = time.perf_counter()
            run_sweep(sweep, store, settings=Settings())
            if number:  # the first time the model and the other process are loaded
                took[on].append(time.perf_counter() - began)
            if on and side.missing(store):
                print("not all were measured")
    ratios = sorted(one / other for one, other in zip(took[True], took[False], strict=True))
    print(f"{f'run_sweep, {CLIPS} clips, {name}: measured / not measured':<60} {min(took[True]):8.2f} s / {min(took[False]):.2f} s, "
          f"ratio {min(took[True]) / min(took[False]):.3f} (each round: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")  # fmt: skip


def main() -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    import torch

    torch.set_num_threads(1)  # so that a second core is free, as beside a GPU
    print(
        f"{cores} cores, load {os.getloadavg()[0]:.1f}; clips are made with one thread. A sweep ends when its last clip is measured."
    )
    with tempfile.TemporaryDirectory() as folder:
        one_clip(Path(folder))
        for name, size in SIZES.items():
            on_the_side(Path(folder), name, size)


if __name__ == "__main__":
    main()
