"""How well a tune finds the best of 150 settings, where the truth is known: one command makes the table of docs/tune.md.

    python experiments/tune_truth.py [--pool FOLDER] [--metric temporal_flickering]

Each clip is made once by the closed-form model, 64x64, in this process, and measured at once; the pool is kept in FOLDER, and a call that
was ended goes on. The truth is each setting's mean over ten seeds. Then 20 repeats of each method take other seeds out of the pool. Costs
are the model's own FLOPs of a clip (closed_form/cost.py), not seconds: the same on any machine, quiet or not.
"""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path

import numpy as np

from i2v_lab.clip.params import ClipParams
from i2v_lab.clip.picture import open_picture
from i2v_lab.clip.progress import Progress
from i2v_lab.metrics import pixels
from i2v_lab.metrics.frames import whole
from i2v_lab.models.closed_form.model import ClosedForm

SPACE = {
    "guidance_scale": (1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 12.0, 15.0, 20.0, 30.0),
    "num_inference_steps": (2, 4, 8),
    "scheduler": ("ddim", "euler", "euler-a", "dpm++-2m", "unipc"),
}
BASE = {"image": "sample:coffee", "prompt": "camera panning left slowly", "resolution": "64x64", "num_frames": 8}
CHEAP = {"num_frames": 3}
SETTINGS = [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]
TRUTH, POOL, CHEAP_POOL = range(1000, 1010), range(40), range(24)  # seeds
FIGURES = ("temporal_flickering", "sharpness", "sharpness_loss")
REPEATS, NEAR = 20, 0.05  # a choice is right within this part of the range of the truth


def params_of(number: int, level: int, seed: int = 0) -> ClipParams:
    """A clip of a setting; level 0 is cheap, 1 is full quality."""
    return ClipParams(**{**BASE, **(CHEAP if level == 0 else {}), **SETTINGS[number], "seed": seed})


def flops(number: int, level: int) -> float:
    """What a clip costs, by the model's own formula."""
    parts = ClosedForm.cost(params_of(number, level), checkpoint="", device="cpu", dtype="float32")
    return float(sum(part.flops for part in parts))


class Maker(ClosedForm):
    """The model, which keeps the motions of a shape from clip to clip."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, int, int], object] = {}

    def encode(self, image, params, progress):
        shape = (params.resolution, params.num_frames, params.condition_fps)
        if shape not in self.kept:
            self.kept[shape] = super().encode(image, params, progress)
        return self.kept[shape]


def measured(frames: np.ndarray) -> list[float]:
    """The figures of a clip, by the package's own functions."""
    sampled = whole(frames, 8.0)
    sharp = [pixels.sharpness(frame) for frame in sampled.small]
    return [pixels.temporal_flickering(sampled), sum(sharp) / len(sharp), 1 - sharp[-1] / sharp[0] if sharp[0] > 0 else math.nan]


def make(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(full, cheap): (settings, seeds, figures) of the pool; the seeds of the truth come first. What is there is not made again."""
    folder.mkdir(parents=True, exist_ok=True)
    model, picture, found = Maker(), open_picture(BASE["image"]), []
    for level, seeds in ((1, [*TRUTH, *POOL]), (0, [*CHEAP_POOL])):
        rows = []
        for number in range(len(SETTINGS)):
            path = folder / f"{level}-{number}.npy"
            if not path.is_file():
                clips = (model.generate(picture, params_of(number, level, seed), Progress()) for seed in seeds)
                part = path.with_suffix(".part.npy")
                np.save(part, np.array([measured(frames) for frames in clips]))
                part.replace(path)
                print(f"\rlevel {level}: {number + 1} of {len(SETTINGS)} settings", end="", file=sys.stderr, flush=True)
            rows.append(np.load(path))
        found.append(np.stack(rows))
    return found[0], found[1]
