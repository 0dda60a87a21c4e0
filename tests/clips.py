"""Frames for the tests of `clip.video`, and what tools that did not write a clip find in it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import skimage
from PIL import Image

needs_ffprobe = pytest.mark.skipif(
    not (shutil.which("ffprobe") and shutil.which("ffmpeg")), reason="ffprobe is not on the PATH (Debian: apt-get install ffmpeg)"
)

SETTINGS = {
    "prompt": "海浪拍打沙滩 🌊\nline two\r\n\"quoted\" 'single' back\\slash \\n ;=# é \u2028 \x00",
    "negative_prompt": ";FFMETADATA1\n[CHAPTER]\ncomment=no",
    "guidance_scale": 9.5,
    "nested": {"list": [1, None, True]},
}


def photograph(name: str = "coffee.png") -> np.ndarray:
    """A photograph (H, W, 3), even sides."""
    pixels = np.asarray(Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB"))
    return pixels[: pixels.shape[0] // 2 * 2, : pixels.shape[1] // 2 * 2]


def moving(frames: int = 6, height: int = 64, width: int = 64) -> np.ndarray:
    """A window sliding over a photograph, (F, H, W, 3)."""
    picture = photograph()
    return np.stack([picture[100 : 100 + height, 200 + 2 * k : 200 + 2 * k + width] for k in range(frames)])


def streams(path: Path) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", path]
    answer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {**answer["streams"][0], "format": answer["format"]}


def decoded(path: Path, height: int, width: int) -> np.ndarray:
    """Frames by the system's ffmpeg, chroma interpolated as players do."""
    smooth = "scale=flags=accurate_rnd+full_chroma_int+full_chroma_inp+bicubic"
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", path, "-vf", smooth, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8).reshape(-1, height, width, 3)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other.astype(float)) ** 2)))


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


def nothing_left(folder: Path) -> bool:
    return not list(folder.iterdir()) and not children()
