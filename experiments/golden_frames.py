"""Make the golden frames of the closed-form model again: tests/golden/*.png.

    python experiments/golden_frames.py

tests/test_closed_form_golden.py holds the model to them, to within one grey level. If a change of what the model shows is
meant, raise REVISION in i2v_lab/models/closed_form/model.py, run this, look at the pictures and commit them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from i2v_lab import ClipParams, Progress, open_picture
from i2v_lab.models.closed_form.model import ClosedForm

FOLDER = Path(__file__).parents[1] / "tests" / "golden"
BASE = ClipParams(image="sample:coffee", resolution="64x64", num_frames=8, condition_fps=8, num_inference_steps=12, seed=1)

# coffee is 600x400 and has room to the left and right of a square crop; astronaut is 512x512 and has none.
CASES: dict[str, dict[str, Any]] = {
    "pan_with_room": {"prompt": "camera panning left"},
    "pan_without_room": {"prompt": "camera panning left", "image": "sample:astronaut"},
    "tilt_of_a_wide_clip": {"prompt": "tilt up", "image": "sample:rocket", "resolution": "64x88", "scheduler": "unipc"},
    "zoom_out": {"prompt": "zoom out", "image": "sample:astronaut", "scheduler": "heun", "negative_prompt": "zoom in"},
    "rotation_and_waves": {"prompt": "camera rotating clockwise, ocean waves", "image": "sample:cat", "scheduler": "euler-a"},
    "long_slowed_pan": {"prompt": "pan up and right", "image": "sample:motorcycle", "num_frames": 40},
    "no_prompt_no_guidance": {"guidance_scale": 1.0, "scheduler": "dpm++-2m"},
    "too_much_guidance": {"prompt": "wind blowing", "guidance_scale": 30.0, "num_inference_steps": 4},
    "candlelight": {"prompt": "candlelight, shaking", "image": "sample:cat", "scheduler": "lcm"},
}


def golden(name: str) -> npt.NDArray[np.uint8]:
    """The middle and the last frame of a case, side by side: uint8 RGB, (H, 2 W, 3)."""
    params = BASE.replace(**CASES[name])
    frames = ClosedForm().generate(open_picture(params.image), params, Progress())
    return np.concatenate([frames[len(frames) // 2], frames[-1]], 1)


def main() -> None:
    """Write every picture."""
    FOLDER.mkdir(exist_ok=True)
    for name in CASES:
        Image.fromarray(golden(name)).save(FOLDER / f"{name}.png", optimize=True)
    print(f"{len(CASES)} pictures in {FOLDER}, {sum(path.stat().st_size for path in FOLDER.iterdir()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
