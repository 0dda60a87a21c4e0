"""How long a clip takes to write, beside diffusers' own export_to_video. Prints; asserts nothing.

python tests/bench/bench_video.py
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from i2v_lab.clip import video

ROUNDS = 9


def frames() -> np.ndarray:
    """A photograph sliding sideways, (16, 512, 512, 3)."""
    picture = np.asarray(Image.open(Path(skimage.__file__).parent / "data" / "astronaut.png").convert("RGB"))
    return np.stack([np.roll(picture, 2 * k, axis=1) for k in range(16)])


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    from diffusers.utils import export_to_video

    clip = frames()
    pictures = [Image.fromarray(frame) for frame in clip]  # what a pipeline hands to export_to_video
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        theirs_path = folder / "theirs.mp4"
        ours, theirs = [], []
        for _ in range(ROUNDS):  # in turn, so that a busy machine slows both
            ours.append(seconds(lambda: video.write(clip, folder, stem="ours", fps=Fraction(8))))
            theirs.append(seconds(lambda: export_to_video(pictures, str(theirs_path), fps=8)))
        info = video.probe(folder / "ours.mp4")
        try:
            import imageio  # noqa: F401

            way = "imageio with FFmpeg"
        except ImportError:
            way = "OpenCV, since imageio is not installed"
        other = video.probe(theirs_path)
    mine, other_time = statistics.median(ours), statistics.median(theirs)
    print(f"16 frames of 512x512, median of {ROUNDS}, in turn")
    print(f"i2v_lab.video.write, read back and checked: {mine:.3f} s  ({info.codec}, {info.file_bytes / 1e3:.0f} kB)")
    print(f"diffusers export_to_video ({way}): {other_time:.3f} s  ({other.codec}, {other.file_bytes / 1e3:.0f} kB)")
    print(f"ratio ours/theirs: {mine / other_time:.2f}")


if __name__ == "__main__":
    main()
