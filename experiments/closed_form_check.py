"""Does the closed-form model do as told? Measured by optical flow on finished MP4 files, not by the model's own weights.

    python experiments/closed_form_check.py                       4 photographs x 12 prompts x 3 seeds, default settings
    python experiments/closed_form_check.py --guidance 1 2 4 6 9 12 16 30 --steps 50 10 4 --seeds 1 --resolution 256p

prints the share of clips that move as told, as a Markdown table; docs/models.md holds what it printed.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from i2v_lab import ClipParams, Store, open_picture, run_clip
from i2v_lab.clip.video import read
from i2v_lab.metrics.flow import ClipFlow, coordinates, fit, shrink
from i2v_lab.metrics.frames import whole

PHOTOGRAPHS = ("sample:coffee", "sample:cat", "sample:astronaut", "sample:motorcycle")


@dataclass(frozen=True)
class Movement:
    """How a clip moves, from dense optical flow (DIS) of each frame to the next, weighted by the texture that carries it.

    All lengths are in short sides a frame.

    Attributes:
        right, down: mean flow of the scene.
        zoom, turn: mean expansion and clockwise rotation, as displacement at one short side from the centre.
        top, bottom, middle, rim: mean length of what is left of the flow in that part once pan, zoom and turn are taken off.
        light: brightness of the last frame over that of the first.
        back_and_forth: share of successive frames in which the mean flow turns round.
    """

    right: float
    down: float
    zoom: float
    turn: float
    top: float
    bottom: float
    middle: float
    rim: float
    light: float
    back_and_forth: float


def movement(frames: npt.NDArray[np.uint8]) -> Movement:
    """Measure a clip, uint8 RGB (F, H, W, 3)."""
    clip = ClipFlow(whole(frames), shrink(frames))
    x, y = coordinates(clip.grey[0].shape)
    parts = (y < -0.15, y > 0.2, np.hypot(x, y) < 0.2, np.hypot(x, y) > 0.33)
    fits, lengths = [], []
    for step in clip.steps:
        found, rest = fit(step.flow / clip.short_side, x, y, step.weight)
        fits.append(found)
        lengths.append([np.average(np.linalg.norm(rest, axis=2), weights=step.weight * part + 1e-9) for part in parts])
    mean = np.mean(fits, 0) if fits else np.zeros(4)
    turns = [float(a[:2] @ b[:2] < 0) for a, b in pairwise(fits)]
    light = float(frames[-1].mean() / max(1.0, frames[0].mean()))
    rests = np.mean(lengths, 0) if lengths else np.zeros(4)
    return Movement(*map(float, mean), *map(float, rests), light, float(np.mean(turns)) if turns else 0.0)


def pans(right: int, down: int) -> Callable[[Movement], bool]:
    """The scene moves this way: within 30 degrees, and more than it zooms or turns."""

    def told(m: Movement) -> bool:
        length = math.hypot(m.right, m.down)
        return length > 0.003 and (m.right * right + m.down * down) / length > math.cos(math.radians(30)) and length > abs(m.zoom)

    return told


def _zooms(m: Movement, sense: int) -> bool:
    return m.zoom * sense > 0.003 and abs(m.zoom) > abs(m.turn) and abs(m.zoom) > math.hypot(m.right, m.down)


# A camera that pans left makes the scene move right; one that turns clockwise makes it turn counterclockwise.
PROMPTS: dict[str, Callable[[Movement], bool]] = {
    "camera panning left": pans(1, 0),
    "the camera pans slowly to the right": pans(-1, 0),
    "camera pans up": pans(0, 1),
    "镜头向左平移": pans(1, 0),
    "camera pans down and right": pans(-1, -1),
    "zoom in": lambda m: _zooms(m, 1),
    "slowly zooming out": lambda m: _zooms(m, -1),
    "镜头拉近": lambda m: _zooms(m, 1),
    "camera rotating clockwise": lambda m: m.turn < -0.002 and abs(m.turn) > abs(m.zoom),
    "ocean waves": lambda m: m.bottom > 2 * m.top and m.bottom > 0.0006,
    "wind blowing": lambda m: m.top > 1.5 * m.bottom and m.top > 0.0006,
    "the sun sets and it gets darker": lambda m: m.light < 0.85,
}


def follows(clip: Path, prompt: str) -> bool:
    """Whether a finished clip moves as a prompt of PROMPTS tells."""
    return PROMPTS[prompt](movement(read(clip)))


def psnr_first(clip: Path, params: ClipParams) -> float:
    """PSNR of a clip's first frame against the crop that went in, in dB."""
    error = read(clip)[0].astype(float) - open_picture(params.image).crop(params.height, params.width)
    return float(10 * np.log10(255**2 / np.mean(error**2)))


def main() -> None:
    """Make the clips, measure them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guidance", type=float, nargs="+", default=[9.0])
    parser.add_argument("--steps", type=int, nargs="+", default=[50])
    parser.add_argument("--seeds", type=int, default=3, help="seeds a photograph and prompt")
    parser.add_argument("--resolution", default="512p")
    parser.add_argument("--photographs", nargs="+", default=PHOTOGRAPHS)
    parser.add_argument("--verbose", action="store_true", help="name the clips that do not move as told")
    asked = parser.parse_args()
    print(f"| steps | {' | '.join(f'guidance {g:g}' for g in asked.guidance)} |\n|---|{'---|' * len(asked.guidance)}")
    worst = math.inf
    for steps in asked.steps:
        row = []
        for guidance in asked.guidance:
            told, clips = 0, 0
            for image in asked.photographs:
                for number, prompt in enumerate(PROMPTS):
                    for seed in range(asked.seeds):
                        # A seed is never used twice: the same noise under several prompts is not so many draws.
                        seed = seed * 1000 + number * 10 + asked.photographs.index(image)  # noqa: PLW2901
                        params = ClipParams(image=image, prompt=prompt, seed=seed, guidance_scale=guidance,
                                            num_inference_steps=steps, resolution=asked.resolution)  # fmt: skip
                        with tempfile.TemporaryDirectory() as folder:
                            record = run_clip(params, store=Store(Path(folder)))
                            clip = Path(folder) / record.clip
                            right = follows(clip, prompt)
                            worst = min(worst, psnr_first(clip, params)) if guidance == 9 and steps == 50 else worst
                        if asked.verbose and not right:
                            print(f"    not as told: {image} {prompt!r} seed {seed}")
                        told, clips = told + right, clips + 1
            row.append(f"{told / clips:.2f}")
        print(f"| {steps} | {' | '.join(row)} |", flush=True)
    print(f"\n{clips} clips a figure.", f"Worst first frame: {worst:.1f} dB." if math.isfinite(worst) else "")


if __name__ == "__main__":
    main()
