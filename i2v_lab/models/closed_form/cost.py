"""What a closed-form clip takes, by formula: NumPy and OpenCV do much of the work, which no tracker of torch follows.

The factors were fitted to the peak resident memory of fresh processes, from 64x64 with 2 frames to 2048x2048 with 16 and
512p with 256 frames; docs/planner.md has the figures.
"""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path

from PIL import Image

from i2v_lab.clip.levers import steps_of
from i2v_lab.clip.params import ClipParams
from i2v_lab.models.base import StageCost
from i2v_lab.models.closed_form.canvas import FINE, grid_size
from i2v_lab.models.closed_form.motions import MOTIONS

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")  # whose header has the size


def cost(params: ClipParams) -> tuple[StageCost, ...]:
    """Bytes beyond those of the process itself, and FLOPs, of the stages encode, denoise and decode."""
    rows, columns = grid_size(params.height, params.width)
    clips = len(MOTIONS) * params.num_frames * 3 * rows * columns  # numbers in all centres mu_k
    pixels, picture = params.height * params.width, picture_pixels(params.image)
    passes = sum(2 if step.guided else 1 for step in steps_of(params, params.num_inference_steps))
    held = 3 * picture
    # While a picture is resampled there is a second copy of it, of 4 bytes a pixel. The clips are float32: at first three
    # times over, with the fine frames that they are pooled from; then beside their centres in float64 and the squares of
    # those. A frame is mapped, warped and added up in float32, about 75 bytes a pixel; all finished ones are kept.
    encode = held + 19 * clips + 4 * picture
    denoise = held + 25 * clips
    decode = held + 25 * clips + max(4 * picture, (75 + 3 * params.num_frames) * pixels)
    return (
        StageCost("encode", 0, encode, 20 * clips * FINE * FINE),
        StageCost("denoise", 0, denoise, 2 * clips * (params.num_inference_steps + passes)),
        StageCost("decode", 0, decode, 100 * params.num_frames * pixels),
    )


def picture_pixels(image: str) -> int:
    """Pixels of a picture by the header of its file; 0 for a sample, which is small, and for a file that cannot be opened."""
    if image.startswith("sample:"):
        return 0
    with contextlib.suppress(Exception), warnings.catch_warnings():  # opening it for the clip will report what is wrong
        warnings.simplefilter("ignore")
        if Path(image).expanduser().is_file():  # never a pipe or a device
            with Image.open(Path(image).expanduser(), formats=_FORMATS) as opened:
                return opened.width * opened.height
    return 0
